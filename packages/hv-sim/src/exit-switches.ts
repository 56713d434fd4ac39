import type { SwitchedExit } from '@introd/glue';

/** Numbers of the switched exits: what the port passes to the machine, and the machine's `SWITCH_` constants. */
export const EXIT_SWITCHES: { readonly [K in SwitchedExit['kind']]: number } = {
  'cr-write': 0,
  'msr-write': 1,
  'xcr-write': 2,
  'descriptor-table': 3,
  breakpoint: 4,
  vmcall: 5,
  'event-injected': 6,
  'page-walk-updates': 7,
  'rep-iterations': 8,
};
