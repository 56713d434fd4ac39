import type { Capability, FullPort } from './port.js';

/** The calls that each capability brings to a port. */
export const CAPABILITY_OPERATIONS = {
  memory: ['readPhysical'],
  write: ['writePhysical', 'compareExchange'],
  map: ['mapPage'],
  registers: ['vcpu', 'fetchRegisters', 'storeRegisters', 'readMsr', 'readXsaveArea', 'writeXsaveArea'],
  pause: ['pause', 'resume'],
  exits: ['next', 'reply', 'setExit'],
  'page-access': ['getPageAccess', 'setPageAccess', 'flushPageAccess'],
  inject: ['inject'],
} as const satisfies Record<Capability, readonly (keyof FullPort)[]>;

/** The properties that each capability brings beside its calls. */
export const CAPABILITY_PROPERTIES = {
  memory: ['memoryRegions'],
  write: [],
  map: [],
  registers: [],
  pause: ['pauseCount'],
  exits: ['guestRecord'],
  'page-access': [],
  inject: [],
} as const satisfies Record<Capability, readonly (keyof FullPort)[]>;
