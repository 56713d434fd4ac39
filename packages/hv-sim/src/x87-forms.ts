import { destinationOnly, type FormRule, memoryOnly, plain, sourceOnly } from './form-rule.js';

/** The x87 forms that handle its state instead of computing, and those that save and restore extended state. */
export const x87Forms: readonly FormRule[] = [
  [/^(Fninit|Fnclex|Fnop|Emms)$/, ([name]) => plain(name!.toUpperCase())],
  [/^Wait$/, () => plain('FWAIT')],
  [/^Fldcw_m2byte$/, () => sourceOnly('FLDCW', 2)],
  [/^(Fnstcw|Fnstsw)_(?:m2byte|AX)$/, ([, name]) => destinationOnly(name!.toUpperCase(), 2)],
  // The size is that of the instruction and data pointers: 8 with REX.W.
  [
    /^(Fxsave|Fxrstor|Xsave|Xsaveopt|Xsavec|Xsaves|Xrstor|Xrstors)(64)?_(?:m512byte|mem)$/,
    ([, name, wide]) => memoryOnly(name!.toUpperCase(), wide ? 8 : 4),
  ],
];
