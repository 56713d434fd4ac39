/** Kinds of two-operand arithmetic, in the order of their encoding (SDM vol. 2, table A-6, group 1), then TEST. */
export const ALU_KINDS = ['ADD', 'OR', 'ADC', 'SBB', 'AND', 'SUB', 'XOR', 'CMP', 'TEST'] as const;

/** Forms of two-operand instructions: register or memory first, then register, immediate or memory. */
export const OPERAND_FORMS = ['RR', 'RI', 'RM', 'MR', 'MI'] as const;

/** Kinds of one-operand arithmetic. */
export const UNARY_KINDS = ['INC', 'DEC', 'NOT', 'NEG'] as const;

/** Kinds of shifts and rotates, in the order of their encoding (SDM vol. 2, table A-6, group 2; 6 is SHL again). */
export const SHIFT_KINDS = ['ROL', 'ROR', 'RCL', 'RCR', 'SHL', 'SHR', 'SAL', 'SAR'] as const;

/** Conditions in the order of their encoding (SDM vol. 1, appendix B). */
export const CONDITIONS = [
  'O', 'NO', 'B', 'AE', 'E', 'NE', 'BE', 'A', 'S', 'NS', 'P', 'NP', 'L', 'GE', 'LE', 'G',
] as const; // biome-ignore format: one row per table

/** Operations that the executor's main switch does itself, each specialised by form and size. */
const HOT = [
  ...['32', '64'].flatMap((size) => OPERAND_FORMS.flatMap((form) => ALU_KINDS.map((kind) => `${kind}_${form}_${size}`))),
  // 8 and 16 bits: the kind is in the record.
  ...['8', '16'].flatMap((size) => OPERAND_FORMS.map((form) => `ALU_${form}_${size}`)),
  ...['8', '16', '32', '64'].flatMap((size) => OPERAND_FORMS.map((form) => `MOV_${form}_${size}`)),
  // The destination of the zero-extending forms is 32 bits, which is also the 64-bit form.
  ...['8', '16'].flatMap((source) => [`MOVZX_32_R${source}`, `MOVZX_32_M${source}`]),
  ...['8', '16'].flatMap((source) => [`MOVSX_32_R${source}`, `MOVSX_32_M${source}`]),
  ...['8', '16', '32'].flatMap((source) => [`MOVSX_64_R${source}`, `MOVSX_64_M${source}`]),
  'LEA_32',
  'LEA_64',
  ...['32', '64'].flatMap((size) => ['INC', 'DEC', 'NEG', 'NOT'].map((kind) => `${kind}_R_${size}`)),
  ...['32', '64'].flatMap((size) => ['SHL', 'SHR', 'SAR'].map((kind) => `${kind}_RI_${size}`)),
  'IMUL_RR_32', 'IMUL_RM_32', 'IMUL_RR_64', 'IMUL_RM_64',
  ...CONDITIONS.map((condition) => `J${condition}`),
  'JMP', 'JMP_R', 'JMP_M', 'CALL', 'CALL_R', 'CALL_M', 'RET', 'RET_I',
  'PUSH_R', 'PUSH_I', 'PUSH_M', 'POP_R', 'LEAVE',
  'SETCC_R', 'SETCC_M', 'CMOV_32_R', 'CMOV_32_M', 'CMOV_64_R', 'CMOV_64_M',
  'NOP',
] as const;

/** Operations of the second switch: operands are read by the record's flags and size. */
const GENERIC = [
  'MOVZX', 'MOVSX', 'LEA_16', 'UNARY', 'SHIFT', 'SHLD', 'SHRD', 'CMOV',
  'XCHG', 'XADD', 'CMPXCHG', 'CMPXCHG8B', 'CMPXCHG16B',
  'MUL', 'IMUL_1', 'IMUL_2', 'IMUL_3', 'DIV', 'IDIV',
  'BT', 'BTS', 'BTR', 'BTC', 'BSF', 'BSR', 'POPCNT', 'LZCNT', 'TZCNT',
  'ANDN', 'BEXTR', 'BLSI', 'BLSR', 'BLSMSK', 'BZHI', 'MULX', 'PDEP', 'PEXT', 'RORX', 'SARX', 'SHLX', 'SHRX',
  'ADCX', 'ADOX', 'MOVBE', 'BSWAP', 'CRC32', 'XLAT',
  'CBW', 'CWD',
  'CLC', 'STC', 'CMC', 'CLD', 'STD', 'LAHF', 'SAHF',
  'LOOPNE', 'LOOPE', 'LOOP', 'JRCXZ',
  'PUSH', 'POP', 'POP_M', 'PUSHF', 'POPF', 'ENTER', 'LEAVE_16', 'PUSH_SEGMENT', 'MOV_FROM_SEGMENT',
  'MOVS', 'STOS', 'LODS', 'CMPS', 'SCAS', 'INS', 'OUTS',
  'PROBE', 'INVALID', 'UNSUPPORTED',
  // SSE: XMM registers are moved whole or in halves; the record's size is the memory operand's.
  'MOVX_RR', 'MOVX_RM', 'MOVX_MR', 'MOVX_RM_ALIGNED', 'MOVX_MR_ALIGNED',
  'MOVX_LOW_RR_64', 'MOVX_LOW_RR_32', 'MOVQ_XX', 'MOVX_LOAD_ZERO', 'MOVX_STORE_LOW',
  'MOVX_LOAD_LOW', 'MOVX_LOAD_HIGH', 'MOVX_STORE_HIGH', 'MOVHLPS', 'MOVLHPS',
  'MOVX_FROM_GENERAL', 'MOVX_TO_GENERAL',
  'PXOR', 'POR', 'PAND', 'PANDN', 'PUNPCKLQDQ', 'PUNPCKHQDQ', 'LDMXCSR', 'STMXCSR',
] as const; // biome-ignore format: one row per group

/** Operations that belong to the machine around the instruction core. */
const SYSTEM = [
  'MOV_TO_CR', 'MOV_FROM_CR', 'MOV_TO_DR', 'MOV_FROM_DR', 'LMSW', 'SMSW', 'CLTS',
  'LGDT', 'LIDT', 'SGDT', 'SIDT', 'LLDT', 'LTR', 'SLDT', 'STR', 'LAR', 'LSL', 'VERR', 'VERW',
  'MOV_TO_SEGMENT', 'POP_SEGMENT', 'LOAD_FAR_POINTER',
  'JMP_FAR', 'CALL_FAR', 'RET_FAR', 'IRET', 'INT_N', 'INT3', 'INT1',
  'SYSCALL', 'SYSRET', 'SYSENTER', 'SYSEXIT', 'SWAPGS',
  'CLI', 'STI', 'HLT', 'IN', 'OUT', 'STAC', 'CLAC',
  'CPUID', 'RDTSC', 'RDTSCP', 'RDPID', 'RDPMC', 'RDMSR', 'WRMSR', 'XGETBV', 'XSETBV',
  'INVLPG', 'INVD', 'WBINVD', 'INVPCID', 'MONITOR', 'MWAIT', 'VMCALL', 'VMMCALL',
  'RDFSBASE', 'RDGSBASE', 'WRFSBASE', 'WRGSBASE', 'FXSAVE', 'FXRSTOR',
] as const; // biome-ignore format: one row per group

/** Names of all operations; the number of an operation is its place in this list. */
export const OP_NAMES: readonly string[] = [...HOT, ...GENERIC, ...SYSTEM];

/** First operation of the second switch. */
export const GENERIC_BASE: number = HOT.length;
/** First operation that the executor hands to the machine's `execSystem`. */
export const SYSTEM_BASE: number = HOT.length + GENERIC.length;

const numbers = new Map(OP_NAMES.map((name, number) => [name, number]));

/**
 * Number of an operation.
 * @throws RangeError when there is no operation of that name: a mistake in the translator, found when the module loads.
 */
export function opCode(name: string): number {
  const number = numbers.get(name);
  if (number === undefined) throw new RangeError(`no operation is called ${name}`);
  return number;
}
