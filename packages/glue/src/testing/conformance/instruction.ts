/** One instruction of a conformance program: its bytes beside what they mean, so that a reader can check them. */
export interface ConformanceInstruction {
  /** Assembly in Intel syntax. */
  readonly text: string;
  readonly bytes: Uint8Array;
  /** Name by which a case finds the instruction's address. */
  readonly label: string | undefined;
}

/** General registers by their encoding (SDM vol. 2, table 2-2); the programs use no others. */
const REGISTERS = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'] as const;
type Register = (typeof REGISTERS)[number];

/** An instruction from its text and its bytes: opcode bytes in hex, immediates as arrays from {@link le32} and {@link le64}. */
export function code(text: string, ...parts: (string | readonly number[])[]): ConformanceInstruction {
  const bytes = parts.flatMap((part) =>
    typeof part === 'string' ? part.split(' ').map((byte) => Number.parseInt(byte, 16)) : part,
  );
  return { text, bytes: Uint8Array.from(bytes), label: undefined };
}

/** The same instruction with a name. */
export function labelled(label: string, instruction: ConformanceInstruction): ConformanceInstruction {
  return { ...instruction, label };
}

/** Four bytes, little endian. */
export function le32(value: number): number[] {
  return [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
}

/** Eight bytes, little endian. */
export function le64(value: bigint): number[] {
  return [...le32(Number(value & 0xffff_ffffn)), ...le32(Number((value >> 32n) & 0xffff_ffffn))];
}

/** `mov register, imm64` (REX.W B8+r). */
export function load(register: Register, value: bigint): ConformanceInstruction {
  const number = REGISTERS.indexOf(register);
  return code(`mov ${register}, 0x${value.toString(16)}`, '48', [0xb8 + number], le64(value));
}

/** `mov [address], rax` with an absolute address below 2 GiB (REX.W 89 /r, SIB without base and index). */
export function storeRax(address: number): ConformanceInstruction {
  return code(`mov [0x${address.toString(16)}], rax`, '48 89 04 25', le32(address));
}

/** `mov dword [address], value` (C7 /0). */
export function store32(address: number, value: number): ConformanceInstruction {
  return code(`mov dword ptr [0x${address.toString(16)}], ${value}`, 'c7 04 25', le32(address), le32(value));
}
