/**
 * Nanoseconds per operation of the C implementation (HVMI's introcore, -O3) on a machine of the same kind: two cores, shared,
 * noisy; best median of about ten runs. Operations of ours without a peer there are not listed.
 */
export const C_FIGURES = {
  events: {
    'EPT write violation -> hook callback': 150,
    'EPT write on hooked page, no hook in range': 122,
    'EPT write, instruction not cached (2 exits)': 5302,
    'EPT execute violation -> hook callback': 319,
    'CR4 write -> callback': 36,
    'MSR write violation -> callback': 35,
    'timer tick (1 s), no checks enabled': 42,
  },
  memory: {
    'translate VA, 4 KiB page, cached tables': 136,
    'translate VA, 2 MiB page': 107,
    'translate VA, cold GPA cache': 4515,
    'read 8 guest bytes by VA': 128,
    'read 4096 guest bytes by VA': 160,
  },
  hooks: { 'set+remove+commit GPA hook': 124, 'set+remove+commit GVA hook': 5774 },
  decoder: {
    'decode, per instruction': 125,
    'all accessed addresses of an instruction': 41,
  },
  windows: { 'validate self-map entries, per process': 16 },
  shemu: { 'decoder loop, per instruction': 159, 'arithmetic loop, per instruction': 151 },
};
