/**
 * All forms of all instructions that exist in 64-bit mode, by mnemonic, taken from the tables of iced-x86.
 */
import { Code, CodeExt, EncodingKind, MemorySizeExt, Mnemonic, type OpCodeOperandKind } from 'iced-x86';

/** One form of an instruction: a `Code` of iced-x86 and what its operands may be. */
export interface InstructionForm {
  readonly code: Code;
  readonly operands: readonly OpCodeOperandKind[];
  /** Bytes of the memory operand, 0 when it has none or the size does not count (LEA, INVLPG). */
  readonly memorySize: number;
  /** Operand size in bits where the form fixes one, 0 otherwise. */
  readonly operandSize: number;
}

let forms: Map<string, InstructionForm[]> | undefined;

function readForms(): Map<string, InstructionForm[]> {
  const table = new Map<string, InstructionForm[]>();
  for (const [name, code] of Object.entries(Code)) {
    if (typeof code !== 'number') {
      continue;
    }
    const info = CodeExt.opCode(code);
    try {
      // VEX and later encodings have mnemonics of their own, which nothing here needs.
      if (!info.isInstruction || info.encoding !== EncodingKind.Legacy || !info.mode64 || !info.intelDecoder64) {
        continue;
      }
      const operands: OpCodeOperandKind[] = [];
      for (let i = 0; i < info.opCount; i++) {
        operands.push(info.opKind(i));
      }
      const form: InstructionForm = {
        code,
        operands,
        memorySize: MemorySizeExt.size(info.memorySize),
        operandSize: info.operandSize,
      };
      // `retfq` is a Code of the mnemonic `retf`: the exact name asks for the exact form.
      const exact = name.split('_')[0]!.toLowerCase();
      const mnemonic = Mnemonic[info.mnemonic].toLowerCase();
      for (const key of exact === mnemonic ? [mnemonic] : [mnemonic, exact]) {
        const list = table.get(key);
        if (list === undefined) {
          table.set(key, [form]);
        } else {
          list.push(form);
        }
      }
    } finally {
      info.free();
    }
  }
  return table;
}

/** Forms of an instruction in the order of iced-x86's `Code`; empty when there is no such mnemonic. */
export function formsOf(mnemonic: string): readonly InstructionForm[] {
  forms ??= readForms();
  return forms.get(mnemonic) ?? [];
}
