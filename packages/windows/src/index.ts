export { WindowsError, type WindowsErrorCode } from './error.js';
export type { GuestInfo } from './guest-info.js';
export { WindowsProcess } from './objects/process.js';
export {
  betaPolicy,
  enforcePolicy,
  offPolicy,
  type Policy,
  type ProtectionMode,
  parsePolicy,
} from './policy.js';
export type { ProtectionId } from './protections/index.js';
export {
  type GuestState,
  type ProtectionStatus,
  type WindowsEvent,
  WindowsGuest,
  type WindowsGuestOptions,
} from './windows-guest.js';
