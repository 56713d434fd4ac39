import { defineRecord } from './record-layout.js';

/** State components of XCR0 and of an XSAVE header, a bit each (SDM vol. 1, 13.1). */
export const XStateComponent = {
  /** x87 FPU: control, status, tag and pointer registers, ST0..ST7. */
  X87: 1,
  /** XMM0..XMM15 and MXCSR. */
  SSE: 2,
  /** The upper halves of YMM0..YMM15. */
  AVX: 4,
} as const;

/**
 * An XSAVE area in standard (non-compacted) form with the components x87, SSE and AVX (SDM vol. 1, 13.4). Components
 * behind AVX lie where the processor's CPUID leaf 0DH says; those up to AVX lie here on every processor.
 */
export const XSAVE_AREA = defineRecord({
  // Legacy region, 512 bytes, as FXSAVE64 writes it (SDM vol. 1, table 10-2).
  /** x87 control word. */
  fcw: 'u16',
  /** x87 status word. */
  fsw: 'u16',
  /** Abridged tag word: a bit per register R0..R7 that is not empty. */
  ftw: 'u8',
  reserved: 'u8',
  /** Last x87 opcode, 11 bits. */
  fop: 'u16',
  /** Address of the last x87 instruction. */
  fip: 'u64',
  /** Address of its memory operand. */
  fdp: 'u64',
  mxcsr: 'u32',
  /** Bits of MXCSR that exist. */
  mxcsrMask: 'u32',
  /** ST0..ST7, which are MM0..MM7 too: 10 bytes each in 16. */
  st: 'bytes:128',
  /** XMM0..XMM15, 16 bytes each. */
  xmm: 'bytes:256',
  /** Reserved, or software's. */
  legacyRest: 'bytes:96',
  // Header, 64 bytes (SDM vol. 1, 13.4.2).
  /** XSTATE_BV: components that are not in their initial configuration. */
  xstateBv: 'u64',
  /** XCOMP_BV: 0 in standard form; bit 63 and the components present in compacted form. */
  xcompBv: 'u64',
  headerRest: 'bytes:48',
  /** Upper halves of YMM0..YMM15, 16 bytes each: component 2. */
  ymmHigh: 'bytes:256',
});

/** Bytes of the legacy region: what FXSAVE writes. */
export const FXSAVE_AREA_SIZE: number = XSAVE_AREA.offset.xstateBv;

/** Bytes of legacy region and header: the smallest XSAVE area. */
export const XSAVE_HEADER_END: number = XSAVE_AREA.offset.ymmHigh;

/** x87 control word after FNINIT: all exceptions masked, 64-bit precision (SDM vol. 1, 8.1.5). */
export const FCW_INITIAL = 0x37f;

/** MXCSR after reset: all exceptions masked (SDM vol. 1, 10.2.3). */
export const MXCSR_INITIAL = 0x1f80;

/** Bits of MXCSR that exist on processors with DAZ; others raise #GP (SDM vol. 1, 10.2.3). */
export const MXCSR_MASK = 0xffff;
