export {
  createMockPort,
  type MockFault,
  MockPort,
  type MockPortOptions,
  type PortCall,
  type PortOperation,
  type RefusableOperation,
} from './testing/mock-port.js';
export {
  createSyntheticPort,
  type SyntheticInjection,
  SyntheticPort,
  type SyntheticPortOptions,
  type SyntheticViolation,
} from './testing/synthetic-port.js';
