export { LabError, type LabErrorCode } from './error.js';
export {
  buildLabGuest,
  type HostileVariant,
  LAB_BUILD,
  LabGuest,
  type LabGuestOptions,
  type LabPhase,
  type LabProcess,
  type LabTruth,
} from './guest.js';
export { labMemory } from './layout.js';
export { type HookedThing, type LabScenario, type ScenarioTarget, type SelfMapForm, scenarioId } from './scenario.js';
