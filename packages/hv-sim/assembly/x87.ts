// The x87 state apart from its arithmetic, which the machine has not: control and status word, tags, and when its
// instructions may run (SDM vol. 3A, 2.5 and table 13-1; vol. 1, 8.1).
import { fault, raise, raiseUndefined, VECTOR_MF, VECTOR_NM } from './fault';
import {
  BLOCK_XSAVE_FCW,
  BLOCK_XSAVE_FDP,
  BLOCK_XSAVE_FIP,
  BLOCK_XSAVE_FOP,
  BLOCK_XSAVE_FSW,
  BLOCK_XSAVE_FTW,
  I_EMMS,
  I_FLDCW,
  I_FNCLEX,
  I_FNINIT,
  I_FNSTCW,
  I_FNSTSW,
  I_FWAIT,
  VCPU_CR0,
} from './generated/layout';
import { readSource, writeDestination } from './operand';
import { cpu } from './state';

const CR0_MP: u32 = 2;
const CR0_EM: u32 = 4;
const CR0_TS: u32 = 8;

/** FCW after FNINIT. */
export const FCW_INITIAL: u32 = 0x37f;
/** Exception flags of FSW, which are the mask bits of FCW. */
const EXCEPTIONS: u32 = 0x3f;
/** ES and B: an unmasked exception waits. */
const SUMMARY: u32 = 0x8080;
/** Bits of FCW that exist: masks, precision, rounding, and bit 12 without a meaning; bit 6 reads as 1. */
const FCW_BITS: u32 = 0x1f3f;
const FCW_FIXED: u32 = 0x40;

/** The status word with ES and B as flags and masks make them. */
export function summarized(fsw: u32, fcw: u32): u32 {
  return fsw & EXCEPTIONS & ~fcw ? fsw | SUMMARY : fsw & ~SUMMARY;
}

export function legalControl(fcw: u32): u32 {
  return (fcw & FCW_BITS) | FCW_FIXED;
}

function controlWord(): u32 {
  return load<u16>(cpu, BLOCK_XSAVE_FCW);
}

function statusWord(): u32 {
  return load<u16>(cpu, BLOCK_XSAVE_FSW);
}

function setControl(value: u32): void {
  store<u16>(cpu, <u16>legalControl(value), BLOCK_XSAVE_FCW);
  store<u16>(cpu, <u16>summarized(statusWord(), value), BLOCK_XSAVE_FSW);
}

/** Executes one of the operations from `I_FNINIT` on. */
export function execX87(op: usize, code: u32): void {
  const cr0 = load<u32>(cpu, VCPU_CR0);
  if (code == I_FWAIT) {
    if ((cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS)) return raise(VECTOR_NM, 0, 0);
  } else if (code == I_EMMS) {
    if (cr0 & CR0_EM) return raiseUndefined();
    if (cr0 & CR0_TS) return raise(VECTOR_NM, 0, 0);
  } else if (cr0 & (CR0_EM | CR0_TS)) {
    return raise(VECTOR_NM, 0, 0);
  }
  // All but those whose names begin with FN wait for exceptions first.
  if ((code == I_FWAIT || code == I_EMMS || code == I_FLDCW) && statusWord() & SUMMARY) return raise(VECTOR_MF, 0, 0);
  switch (code) {
    case I_FNINIT:
      store<u16>(cpu, <u16>FCW_INITIAL, BLOCK_XSAVE_FCW);
      store<u16>(cpu, 0, BLOCK_XSAVE_FSW);
      store<u8>(cpu, 0, BLOCK_XSAVE_FTW);
      store<u16>(cpu, 0, BLOCK_XSAVE_FOP);
      store<u64>(cpu, 0, BLOCK_XSAVE_FIP);
      store<u64>(cpu, 0, BLOCK_XSAVE_FDP);
      break;
    case I_FNCLEX:
      // Exception flags, SF, ES and B (SDM vol. 2, FCLEX).
      store<u16>(cpu, <u16>(statusWord() & 0x7f00), BLOCK_XSAVE_FSW);
      break;
    case I_EMMS:
      store<u8>(cpu, 0, BLOCK_XSAVE_FTW);
      break;
    case I_FLDCW: {
      const value = <u32>readSource(op);
      if (fault == 0) setControl(value);
      break;
    }
    case I_FNSTCW:
      writeDestination(op, controlWord());
      break;
    case I_FNSTSW:
      writeDestination(op, statusWord());
      break;
  }
  // FNOP and FWAIT do nothing more.
}
