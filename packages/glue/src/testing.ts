export type { PortOperation } from './port-decorator.js';
export type { ConformanceCase } from './testing/conformance/case.js';
export { type ConformanceEntry, type ConformanceGuest, conformanceGuest } from './testing/conformance/guest.js';
export { conformanceInstructions, type ProgramName } from './testing/conformance/programs.js';
export type { ConformanceTarget } from './testing/conformance/session.js';
export {
  type ConformanceFramework,
  type ConformanceOptions,
  conformanceCases,
  conformanceSuite,
} from './testing/conformance/suite.js';
export {
  createMockPort,
  type MockFault,
  MockPort,
  type MockPortOptions,
  type PortCall,
  type RefusableOperation,
} from './testing/mock-port.js';
export {
  createSyntheticPort,
  type SyntheticInjection,
  SyntheticPort,
  type SyntheticPortOptions,
  type SyntheticViolation,
} from './testing/synthetic-port.js';
