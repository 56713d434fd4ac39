export { WindowsError, type WindowsErrorCode } from './error.js';
export type { GuestInfo } from './guest-info.js';
export { type ProcessFields, WindowsProcess } from './objects/process.js';
export {
  betaPolicy,
  enforcePolicy,
  offPolicy,
  type Policy,
  type ProtectionMode,
  parsePolicy,
} from './policy.js';
export type { ProtectionId } from './protections/index.js';
export type { Protection, ProtectionContext, ProtectionNeeds } from './protections/protection.js';
export { SelfMapProtection } from './protections/self-map/self-map.js';
export {
  type GuestState,
  type ProtectionStatus,
  type WindowsEvent,
  WindowsGuest,
  type WindowsGuestOptions,
} from './windows-guest.js';
