// Operations that belong to the machine around the instruction core.
import {
  clearTaskSwitched,
  getExtended,
  loadMachineStatus,
  moveFromControl,
  moveFromDebug,
  moveToControl,
  moveToDebug,
  setExtended,
} from './control';
import { identify } from './cpuid';
import { breakpointExits, isPassed, registerExit, vmcallExits } from './exits';
import { fault, raiseProtection, raiseUndefined, setAttention } from './fault';
import {
  BLOCK_HALTED,
  BLOCK_SHADOW,
  EXIT_KIND_BREAKPOINT,
  EXIT_KIND_VMCALL,
  I_CALL_FAR,
  I_CALL_FAR_DIRECT,
  I_CLAC,
  I_CLI,
  I_CLTS,
  I_CPUID,
  I_FXRSTOR,
  I_FXSAVE,
  I_HLT,
  I_IN,
  I_INT1,
  I_INT3,
  I_INT_N,
  I_INTO,
  I_INVD,
  I_INVLPG,
  I_IRET,
  I_JMP_FAR,
  I_JMP_FAR_DIRECT,
  I_LAR,
  I_LGDT,
  I_LIDT,
  I_LLDT,
  I_LMSW,
  I_LOAD_FAR_POINTER,
  I_LSL,
  I_LTR,
  I_MOV_FROM_CR,
  I_MOV_FROM_DR,
  I_MOV_TO_CR,
  I_MOV_TO_DR,
  I_MOV_TO_SEGMENT,
  I_OUT,
  I_POP_SEGMENT,
  I_RDFSBASE,
  I_RDGSBASE,
  I_RDMSR,
  I_RDPID,
  I_RDPMC,
  I_RDTSC,
  I_RDTSCP,
  I_RET_FAR,
  I_SGDT,
  I_SIDT,
  I_SLDT,
  I_SMSW,
  I_STAC,
  I_STI,
  I_STR,
  I_SWAPGS,
  I_SYSCALL,
  I_SYSENTER,
  I_SYSEXIT,
  I_SYSRET,
  I_VERR,
  I_VERW,
  I_VMCALL,
  I_WBINVD,
  I_WRFSBASE,
  I_WRGSBASE,
  I_WRMSR,
  I_XGETBV,
  I_XRSTOR,
  I_XRSTORS,
  I_XSAVE,
  I_XSAVEC,
  I_XSAVEOPT,
  I_XSAVES,
  I_XSETBV,
  OP_CODE,
  OP_DST,
  OP_IMM,
  OP_SIZE,
  VCPU_CR0,
  VCPU_CR4,
  VCPU_FS_BASE,
  VCPU_GS_BASE,
  VCPU_TSC_AUX,
} from './generated/layout';
import { restoreLegacy, saveLegacy } from './fxsave';
import { recordDebug, softwareInterrupt } from './interrupt';
import { interruptReturn } from './interrupt-return';
import { isCanonicalForRegisters } from './mode';
import { readMsrInstruction, timeStamp, writeMsrInstruction } from './msr';
import { readSource, writeDestination } from './operand';
import { input, output } from './port-io';
import { AC, cpl, cpu, flags, IF, IOPL, OF, RAX, RCX, RDX, setFlags, setGeneral } from './state';
import { swapGs, systemCall, systemEnter, systemExit, systemReturn } from './system-call';
import {
  inspectSegment,
  loadFarPointer,
  loadSystemSegment,
  loadTable,
  moveToSegment,
  popSegment,
  storeSystemSegment,
  storeTable,
  verifySegment,
} from './tables';
import { flushTlb } from './tlb';
import { farReturn, farTransfer, farTransferDirect } from './transfer';
import { restoreExtended, saveExtended } from './xsave';

export { portAllowed, portIn, portOut } from './port-io';

const CR4_TSD: u64 = 4;
const CR4_FSGSBASE: u64 = 1 << 16;

/** Whether this privilege may do what only ring 0 may; raises #GP(0) if not. */
function privileged(): bool {
  if (cpl() == 0) return true;
  raiseProtection(0);
  return false;
}

function interruptFlag(on: bool): void {
  const old = flags();
  if (cpl() > (old & IOPL) >> 12) return raiseProtection(0);
  if (on && !(old & IF)) store<u32>(cpu + BLOCK_SHADOW, 1);
  setFlags(on ? old | IF : old & ~IF);
  setAttention();
}

function halt(): void {
  if (!privileged()) return;
  store<u32>(cpu + BLOCK_HALTED, 1);
  setAttention();
}

/** INT3: the exit comes first. */
function breakpoint(op: usize): void {
  if (breakpointExits() && !isPassed(EXIT_KIND_BREAKPOINT, 0)) return registerExit(op, EXIT_KIND_BREAKPOINT, 0, 0, 0);
  softwareInterrupt(op, 3);
}

function hypercall(op: usize): void {
  if (!vmcallExits() || isPassed(EXIT_KIND_VMCALL, 0)) return raiseUndefined();
  registerExit(op, EXIT_KIND_VMCALL, 0, 0, 0);
}

function readTimeStamp(withProcessor: bool): void {
  if (cpl() != 0 && load<u64>(cpu + VCPU_CR4) & CR4_TSD) return raiseProtection(0);
  const value = timeStamp();
  setGeneral(RAX, value & 0xffff_ffff);
  setGeneral(RDX, value >> 32);
  if (withProcessor) setGeneral(RCX, load<u64>(cpu + VCPU_TSC_AUX) & 0xffff_ffff);
}

function accessFlag(on: bool): void {
  if (cpl() != 0) return raiseUndefined();
  setFlags(on ? flags() | AC : flags() & ~AC);
  setAttention();
}

function readSegmentBase(op: usize, field: usize): void {
  if (!(load<u64>(cpu + VCPU_CR4) & CR4_FSGSBASE)) return raiseUndefined();
  const value = load<u64>(cpu + field);
  store<u64>(cpu + load<u16>(op, OP_DST), load<u8>(op, OP_SIZE) == 8 ? value : value & 0xffff_ffff);
}

function writeSegmentBase(op: usize, field: usize): void {
  if (!(load<u64>(cpu + VCPU_CR4) & CR4_FSGSBASE)) return raiseUndefined();
  const value = readSource(op);
  if (!isCanonicalForRegisters(value)) return raiseProtection(0);
  store<u64>(cpu + field, value);
}

/** Executes a system operation; `fault` is set when it did not complete. */
export function execSystem(op: usize): void {
  switch (u32(load<u16>(op, OP_CODE))) {
    case I_MOV_TO_CR:
      return moveToControl(op);
    case I_MOV_FROM_CR:
      return moveFromControl(op);
    case I_MOV_TO_DR:
      return moveToDebug(op);
    case I_MOV_FROM_DR:
      return moveFromDebug(op);
    case I_LMSW:
      return loadMachineStatus(op);
    case I_SMSW:
      return writeDestination(op, load<u64>(cpu + VCPU_CR0));
    case I_CLTS:
      return clearTaskSwitched(op);
    case I_LGDT:
    case I_LIDT:
      return loadTable(op);
    case I_SGDT:
    case I_SIDT:
      return storeTable(op);
    case I_LLDT:
    case I_LTR:
      return loadSystemSegment(op);
    case I_SLDT:
    case I_STR:
      return storeSystemSegment(op);
    case I_LAR:
    case I_LSL:
      return inspectSegment(op);
    case I_VERR:
    case I_VERW:
      return verifySegment(op);
    case I_MOV_TO_SEGMENT:
      return moveToSegment(op);
    case I_POP_SEGMENT:
      return popSegment(op);
    case I_LOAD_FAR_POINTER:
      return loadFarPointer(op);
    case I_JMP_FAR:
      return farTransfer(op, false);
    case I_CALL_FAR:
      return farTransfer(op, true);
    case I_JMP_FAR_DIRECT:
      return farTransferDirect(op, false);
    case I_CALL_FAR_DIRECT:
      return farTransferDirect(op, true);
    case I_RET_FAR:
      return farReturn(op);
    case I_IRET:
      interruptReturn(op);
      if (fault == 0) setAttention();
      return;
    case I_INT_N:
      softwareInterrupt(op, i32(load<u8>(op, OP_IMM)));
      if (fault == 0) setAttention();
      return;
    case I_INT3:
      breakpoint(op);
      if (fault == 0) setAttention();
      return;
    case I_INT1:
      softwareInterrupt(op, 1);
      if (fault == 0) {
        recordDebug(0);
        setAttention();
      }
      return;
    case I_INTO:
      if (flags() & OF) {
        softwareInterrupt(op, 4);
        if (fault == 0) setAttention();
      }
      return;
    case I_SYSCALL:
      return systemCall(op);
    case I_SYSRET:
      return systemReturn(op);
    case I_SYSENTER:
      return systemEnter();
    case I_SYSEXIT:
      return systemExit(op);
    case I_SWAPGS:
      return swapGs();
    case I_CLI:
      return interruptFlag(false);
    case I_STI:
      return interruptFlag(true);
    case I_HLT:
      return halt();
    case I_IN:
      return input(op);
    case I_OUT:
      return output(op);
    case I_STAC:
      return accessFlag(true);
    case I_CLAC:
      return accessFlag(false);
    case I_CPUID:
      return identify();
    case I_RDTSC:
      return readTimeStamp(false);
    case I_RDTSCP:
      return readTimeStamp(true);
    case I_RDPID:
      return store<u64>(cpu + load<u16>(op, OP_DST), load<u64>(cpu + VCPU_TSC_AUX));
    case I_RDPMC:
      // No counters, and CR4.PCE only makes it reachable from ring 3.
      return raiseProtection(0);
    case I_RDMSR:
      return readMsrInstruction();
    case I_WRMSR:
      return writeMsrInstruction(op);
    case I_XGETBV:
      return getExtended();
    case I_XSETBV:
      return setExtended(op);
    case I_INVLPG:
      // Translations may always be forgotten: all of them is simplest, and right for large pages too.
      if (privileged()) {
        flushTlb();
        setAttention();
      }
      return;
    case I_INVD:
    case I_WBINVD:
      privileged();
      return;
    case I_VMCALL:
      return hypercall(op);
    case I_RDFSBASE:
      return readSegmentBase(op, VCPU_FS_BASE);
    case I_RDGSBASE:
      return readSegmentBase(op, VCPU_GS_BASE);
    case I_WRFSBASE:
      return writeSegmentBase(op, VCPU_FS_BASE);
    case I_WRGSBASE:
      return writeSegmentBase(op, VCPU_GS_BASE);
    case I_FXSAVE:
      return saveLegacy(op);
    case I_FXRSTOR:
      return restoreLegacy(op);
    case I_XSAVE:
    case I_XSAVEOPT:
    case I_XSAVEC:
    case I_XSAVES:
      return saveExtended(op);
    case I_XRSTOR:
    case I_XRSTORS:
      return restoreExtended(op);
  }
  // MONITOR, MWAIT, INVPCID, VMMCALL: CPUID does not offer them.
  raiseUndefined();
}
