/**
 * All forms of all instructions by mode and mnemonic, taken from the tables of iced-x86.
 */
import {
  Code,
  CodeExt,
  EncodingKind,
  MemorySizeExt,
  Mnemonic,
  type OpCodeInfo,
  type OpCodeOperandKind,
} from 'iced-x86';
import type { Bitness } from '../decoder.js';

/** One form of an instruction: a `Code` of iced-x86 and what its operands may be. */
export interface InstructionForm {
  readonly code: Code;
  readonly operands: readonly OpCodeOperandKind[];
  /** Bytes of the memory operand, 0 when it has none or the size does not count (LEA, INVLPG). */
  readonly memorySize: number;
  /** Operand size in bits where the form fixes one, 0 otherwise. */
  readonly operandSize: number;
}

const formsByMode = new Map<Bitness, Map<string, InstructionForm[]>>();

/** Whether Intel's processors execute the form in code of this size. */
function existsIn(info: OpCodeInfo, bitness: Bitness): boolean {
  switch (bitness) {
    case 64:
      return info.mode64 && info.intelDecoder64;
    case 32:
      return info.mode32 && info.intelDecoder32;
    default:
      return info.mode16 && info.intelDecoder16;
  }
}

function readForms(bitness: Bitness): Map<string, InstructionForm[]> {
  const table = new Map<string, InstructionForm[]>();
  for (const [name, code] of Object.entries(Code)) {
    if (typeof code !== 'number') {
      continue;
    }
    const info = CodeExt.opCode(code);
    try {
      // VEX and later encodings have mnemonics of their own, which nothing here needs.
      if (!info.isInstruction || info.encoding !== EncodingKind.Legacy || !existsIn(info, bitness)) {
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

/** Forms of an instruction in the order of iced-x86's `Code`; empty when there is no such mnemonic in this mode. */
export function formsOf(mnemonic: string, bitness: Bitness): readonly InstructionForm[] {
  let forms = formsByMode.get(bitness);
  if (forms === undefined) {
    forms = readForms(bitness);
    formsByMode.set(bitness, forms);
  }
  return forms.get(mnemonic) ?? [];
}
