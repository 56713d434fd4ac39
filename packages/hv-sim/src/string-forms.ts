import { OpKind } from '@introd/x86/decoder';
import { type Emit, type FormRule, LETTER_SIZES } from './form-rule.js';
import { opCode } from './op-codes.js';
import { OpFlag } from './op-layout.js';

function string(name: string, letter: string): Emit {
  const code = opCode(name.toUpperCase());
  const size = LETTER_SIZES[letter]!;
  return (op) => {
    const { instruction } = op;
    op.code(code);
    op.size(size);
    if (instruction.hasRepPrefix) op.flag(OpFlag.REPEAT);
    else if (instruction.hasRepnePrefix) op.flag(OpFlag.REPEAT_NOT_EQUAL);
    for (let operand = 0; operand < instruction.opCount; operand++) {
      const kind = instruction.opKind(operand);
      if (kind === OpKind.MemorySegSI || kind === OpKind.MemoryESDI) op.flag(OpFlag.ADDRESS_16);
      if (kind === OpKind.MemorySegESI || kind === OpKind.MemoryESEDI) op.flag(OpFlag.ADDRESS_32);
      if (kind === OpKind.MemorySegSI || kind === OpKind.MemorySegESI || kind === OpKind.MemorySegRSI) op.segment();
    }
  };
}

/** String instructions, repeated or not, those of the I/O ports among them. */
export const stringForms: readonly FormRule[] = [
  [/^(Movs|Stos|Lods|Cmps|Scas|Ins|Outs)([bwdq])_(?!xmm)\w+$/, ([, name, letter]) => string(name!, letter!)],
];
