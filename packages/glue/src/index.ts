export { Account, type AccountKind, type AccountLine, accounting, Ledger, type LedgerOptions } from './accounting.js';
export { checkExchange, checkPageAccess, checkReply, checkSwitchedExit } from './argument-checks.js';
export { GlueError, type GlueErrorCode } from './error.js';
export { checkInjectedEvent, hasErrorCode } from './injected-event.js';
export {
  type Capability,
  type ExitsCapability,
  type FullPort,
  type InjectCapability,
  type MapCapability,
  type MemoryCapability,
  type MemoryRegion,
  NO_ERROR_CODE,
  NO_EXIT,
  type PageAccessCapability,
  type PauseCapability,
  type Port,
  type PortBase,
  RegisterGroup,
  type RegistersCapability,
  type SwitchedExit,
  supports,
  type WriteCapability,
} from './port.js';
export { initXsaveState, readXsaveState, writeXsaveState, xsaveAreaSize } from './xsave-state.js';
