export type { ChaosOptions, ChaosShare } from './chaos.js';
export { HvSimError, type HvSimErrorCode } from './error.js';
export {
  type CompatibilityModeState,
  enterCompatibilityMode,
  enterLongMode,
  type LongModeState,
} from './long-mode.js';
export { Machine, type MachineOptions, type RunResult } from './machine.js';
export { enterProtectedMode, type ProtectedModeState } from './protected-mode.js';
export type { RaceOptions } from './races.js';
export type { TableState } from './segment-state.js';
export { translatedForms } from './translate.js';
