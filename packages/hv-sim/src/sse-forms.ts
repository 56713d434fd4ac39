import type { Emit, FormRule } from './form-rule.js';
import { opCode } from './op-codes.js';

/** A move with different operations for register, load and store; undefined where there is no such form. */
function move(size: number, register: string | undefined, load?: string, store?: string): Emit {
  const registerCode = register === undefined ? -1 : opCode(register);
  const loadCode = load === undefined ? -1 : opCode(load);
  const storeCode = store === undefined ? -1 : opCode(store);
  return (op) => {
    op.size(size);
    if (op.isMemory(0)) {
      op.code(storeCode);
      op.memory();
      op.sourceRegister(1);
    } else {
      op.destinationRegister(0);
      if (op.isMemory(1)) {
        op.code(loadCode);
        op.memory();
      } else {
        op.code(registerCode);
        op.sourceRegister(1);
      }
    }
  };
}

function mxcsr(name: string): Emit {
  const code = opCode(name);
  return (op) => {
    op.code(code);
    op.size(4);
    op.memory();
  };
}

/** The moves of SSE, SSE2 and SSE3, and of MXCSR; what computes is in vector-forms.ts. */
export const sseForms: readonly FormRule[] = [
  [
    /^(?:Movaps|Movapd|Movdqa)_xmm(?:m128)?_xmm(?:m128)?$/,
    () => move(16, 'MOVX_RR', 'MOVX_RM_ALIGNED', 'MOVX_MR_ALIGNED'),
  ],
  [/^(?:Movups|Movupd|Movdqu)_xmm(?:m128)?_xmm(?:m128)?$/, () => move(16, 'MOVX_RR', 'MOVX_RM', 'MOVX_MR')],
  [/^Lddqu_xmm_m128$/, () => move(16, undefined, 'MOVX_RM')],
  [/^Movntdqa_xmm_m128$/, () => move(16, undefined, 'MOVX_RM_ALIGNED')],
  [/^(?:Movntdq|Movntps|Movntpd)_m128_xmm$/, () => move(16, undefined, undefined, 'MOVX_MR_ALIGNED')],
  [/^Movq_xmm(?:m64)?_xmm(?:m64)?$/, () => move(8, 'MOVQ_XX', 'MOVX_LOAD_ZERO', 'MOVX_STORE_LOW')],
  [/^Mov[dq]_xmm_rm(32|64)$/, ([, bits]) => move(Number(bits) / 8, 'MOVX_FROM_GENERAL', 'MOVX_LOAD_ZERO')],
  [/^Mov[dq]_rm(32|64)_xmm$/, ([, bits]) => move(Number(bits) / 8, 'MOVX_TO_GENERAL', undefined, 'MOVX_STORE_LOW')],
  [/^Movss_xmm(?:m32)?_xmm(?:m32)?$/, () => move(4, 'MOVX_LOW_RR_32', 'MOVX_LOAD_ZERO', 'MOVX_STORE_LOW')],
  [/^Movsd_xmm(?:m64)?_xmm(?:m64)?$/, () => move(8, 'MOVX_LOW_RR_64', 'MOVX_LOAD_ZERO', 'MOVX_STORE_LOW')],
  [/^Movlp[sd]_(?:xmm_m64|m64_xmm)$/, () => move(8, undefined, 'MOVX_LOAD_LOW', 'MOVX_STORE_LOW')],
  [/^Movhp[sd]_(?:xmm_m64|m64_xmm)$/, () => move(8, undefined, 'MOVX_LOAD_HIGH', 'MOVX_STORE_HIGH')],
  [/^Movhlps_xmm_xmm$/, () => move(8, 'MOVHLPS')],
  [/^Movlhps_xmm_xmm$/, () => move(8, 'MOVLHPS')],
  [/^Movddup_xmm_xmmm64$/, () => move(8, 'MOVDDUP_RR', 'MOVDDUP_RM')],
  [/^(Ldmxcsr|Stmxcsr)_m32$/, ([, name]) => mxcsr(name!.toUpperCase())],
];
