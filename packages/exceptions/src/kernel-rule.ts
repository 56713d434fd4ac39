/** What rules about kernel code are made of. Numbers are those of the rules file (behaviour 3.1). */

/** Bits of a kernel rule. */
export const RuleFlag = {
  /** Lets it pass, and has it told: the rule is on trial. */
  FEEDBACK: 0x1,
  /** For 32-bit guests. */
  BITS_32: 0x2,
  /** For 64-bit guests. */
  BITS_64: 0x4,
  /** Only while the victim is being initialised. */
  INIT: 0x8,
  /** The originator named is the image that the code returns to. */
  RETURN: 0x10,
  /** Only code that lies in no image. */
  NON_DRIVER: 0x100,
  /** As {@link RuleFlag.RETURN}, for the victim's and the signatures' comparisons. */
  RETURN_DRV: 0x200,
  SMAP: 0x400,
  SMEP: 0x800,
  /** Only what a periodic check found. */
  INTEGRITY: 0x1000,
  LINUX: 0x80,
  READ: 0x1000_0000,
  WRITE: 0x2000_0000,
  EXEC: 0x4000_0000,
  /** The rule is switched off. */
  IGNORE: 0x8000_0000,
} as const;

/** The words of `flags` in a JSON source. `return-drv` is set by `return` and is no word of its own (behaviour 3.2). */
export const FLAG_WORDS: Readonly<Record<string, number>> = {
  feedback: RuleFlag.FEEDBACK,
  '32': RuleFlag.BITS_32,
  '64': RuleFlag.BITS_64,
  init: RuleFlag.INIT,
  return: RuleFlag.RETURN | RuleFlag.RETURN_DRV,
  linux: RuleFlag.LINUX,
  read: RuleFlag.READ,
  write: RuleFlag.WRITE,
  exec: RuleFlag.EXEC,
  ignore: RuleFlag.IGNORE,
  'non-driver': RuleFlag.NON_DRIVER | RuleFlag.RETURN_DRV,
  smap: RuleFlag.SMAP,
  smep: RuleFlag.SMEP,
  integrity: RuleFlag.INTEGRITY,
};

/** Number of each kernel object by its name in a JSON source. */
export const KERNEL_OBJECTS = {
  any: 1,
  driver: 2,
  'driver imports': 3,
  'driver code': 4,
  'driver data': 5,
  'driver resources': 6,
  ssdt: 7,
  drvobj: 8,
  fastio: 9,
  msr: 10,
  cr4: 11,
  'hal-heap': 12,
  selfmap: 13,
  idt: 14,
  'idt-reg': 15,
  'gdt-reg': 16,
  'infinity-hook': 17,
  'driver exports': 18,
  'token-privs': 19,
  'sud-exec': 20,
  'hal-perf-counter': 21,
  'security-descriptor': 22,
  'acl-edit': 23,
  'sud-modification': 24,
  'interrupt-obj': 25,
} as const;

/** Name of a kernel object in a JSON source. */
export type KernelObjectName = keyof typeof KERNEL_OBJECTS;

/** Objects that this version decides about; rules for the others are counted and have no effect. */
export const DECIDED_OBJECTS: ReadonlySet<string> = new Set<KernelObjectName>(['any', 'selfmap']);

/** A rule about kernel code, compiled. */
export interface KernelRule {
  /** Where it comes from: `file.json#Exceptions[3]`. */
  readonly name: string;
  /** Hash of the originator's name, or a predefined one. */
  readonly originator: number;
  /** Hash of the victim's name, or a predefined one. */
  readonly victim: number;
  /** Bits of {@link RuleFlag}. */
  readonly flags: number;
  /** Number of the object, of {@link KERNEL_OBJECTS}. */
  readonly object: number;
  /** Names of the signatures of which one per type must match. */
  readonly signatures: readonly string[];
}

/** Order in which the original's build tool writes kernel rules, and so in which they are tried (behaviour 3.2). */
export function compareKernelRules(a: KernelRule, b: KernelRule): number {
  return a.originator - b.originator || a.object - b.object || a.victim - b.victim || a.flags - b.flags;
}
