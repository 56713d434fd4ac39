export { HvSimError, type HvSimErrorCode } from './error.js';
export { enterLongMode, type LongModeState } from './long-mode.js';
export { Machine, type MachineOptions, type RaceOptions, type RunResult } from './machine.js';
export { translatedForms } from './translate.js';
