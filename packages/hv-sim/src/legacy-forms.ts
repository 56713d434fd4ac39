import { type Emit, type FormRule, plain } from './form-rule.js';
import { opCode } from './op-codes.js';

/** AAM and AAD: the base of the number system is an immediate. */
function adjust(name: string): Emit {
  const code = opCode(name);
  return (op) => {
    op.code(code);
    op.immediate(0);
  };
}

/** Instructions that 64-bit mode has dropped, but for those on the stack and on segment registers. */
export const legacyForms: readonly FormRule[] = [
  [/^(Aaa|Aas|Daa|Das|Salc|Into)$/, ([name]) => plain(name!.toUpperCase())],
  [/^(Aam|Aad)_imm8$/, ([, name]) => adjust(name!.toUpperCase())],
  [
    /^Bound_r(16|32)_m\d+$/,
    ([, bits]) => {
      const code = opCode('BOUND');
      return (op) => {
        op.code(code);
        op.size(Number(bits) / 8);
        op.destinationRegister(0);
        op.memory();
      };
    },
  ],
  [
    /^Arpl_(?:rm16_r16|r32m16_r32)$/,
    () => {
      const code = opCode('ARPL');
      return (op) => {
        op.code(code);
        op.size(2);
        op.destination(0);
        op.sourceRegister(1);
      };
    },
  ],
];
