import { Mnemonic } from '../decoder.js';
import { UNSUPPORTED_OPERAND } from './abort.js';
import type { Emulation } from './emulation.js';
import { type EmulatedInstruction, type Handler, OperandKind } from './instruction.js';

const RAX = 0;
const RCX = 1;
const RDX = 2;
/** Selector of the task state segment: of Windows' tables for 64-bit and 32-bit code. There is no local table. */
const TASK_SELECTOR = { wide: 0x40, narrow: 0x28 } as const;
/** XCR0, and what of it is in use: x87, SSE and AVX, of which registers are kept here. */
const XCR0 = 7;
/** Bits of MXCSR that are reserved: with one of them LDMXCSR faults (SDM vol. 1, 10.2.3). */
const MXCSR_RESERVED = ~0xffff;

function storeTaskSelector(m: Emulation, i: EmulatedInstruction): void {
  m.write(i, i.first, m.wide ? TASK_SELECTOR.wide : TASK_SELECTOR.narrow, 0);
}

/** SLDT and RDPID: the local table and the number of the processor are 0. */
function storeZero(m: Emulation, i: EmulatedInstruction): void {
  m.write(i, i.first, 0, 0);
}

/** SMSW: CR0, of which memory gets two bytes. */
function storeMachineStatus(m: Emulation, i: EmulatedInstruction): void {
  m.write(i, i.first, m.control[0]!, m.wide ? m.control[1]! : 0);
}

/** SGDT: what it tells is of no use here, as with CPUID. */
function storeGlobalTable(m: Emulation, i: EmulatedInstruction): void {
  m.linearAddress(i);
  m.memory.storeBytes(m.addressLow, m.addressHigh, new Uint8Array(m.wide ? 10 : 6));
}

function storeVectorControl(m: Emulation, i: EmulatedInstruction): void {
  m.write(i, i.first, m.mxcsr, 0);
}

function loadVectorControl(m: Emulation, i: EmulatedInstruction): void {
  const value = m.read(i, i.first);
  if ((value & MXCSR_RESERVED) !== 0) m.status = 'halted';
  else m.mxcsr = value;
}

/** XGETBV: XCR0, and with ECX 1 what of it is in use. There is no other register. */
function readExtendedControl(m: Emulation): void {
  if (m.general[2 * RCX]! > 1) {
    m.status = 'halted';
    return;
  }
  m.setGeneral(RAX, 4, XCR0, 0);
  m.setGeneral(RDX, 4, 0, 0);
}

/** WRFSBASE and WRGSBASE. */
function writeSegmentBase(segment: number): Handler {
  return (m, i) => {
    m.segmentBases[2 * segment] = m.read(i, i.first);
    m.segmentBases[2 * segment + 1] = m.high;
  };
}

/** LDS, LES, LFS, LGS and LSS: an offset and the selector behind it. */
function loadFarPointer(segment: number): Handler {
  const selector = { kind: OperandKind.SEGMENT, size: 2, register: segment, mask: 0xffff } as const;
  return (m, i) => {
    const { first } = i;
    if (first.kind !== OperandKind.GENERAL) throw UNSUPPORTED_OPERAND;
    m.linearAddress(i);
    const low = m.load(i, first.size);
    const high = m.high;
    m.moveAddress(first.size, m.wide ? 8 : 4);
    m.write(i, selector, m.load(i, 2), 0);
    m.write(i, first, low, high);
  };
}

/** What tells or sets the state of the processor and can be executed by user code. */
export const processorStateHandlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Str, storeTaskSelector],
  [Mnemonic.Sldt, storeZero],
  [Mnemonic.Rdpid, storeZero],
  [Mnemonic.Smsw, storeMachineStatus],
  [Mnemonic.Sgdt, storeGlobalTable],
  [Mnemonic.Stmxcsr, storeVectorControl],
  [Mnemonic.Vstmxcsr, storeVectorControl],
  [Mnemonic.Ldmxcsr, loadVectorControl],
  [Mnemonic.Vldmxcsr, loadVectorControl],
  [Mnemonic.Xgetbv, readExtendedControl],
  [Mnemonic.Wrfsbase, writeSegmentBase(4)],
  [Mnemonic.Wrgsbase, writeSegmentBase(5)],
  [Mnemonic.Les, loadFarPointer(0)],
  [Mnemonic.Lss, loadFarPointer(2)],
  [Mnemonic.Lds, loadFarPointer(3)],
  [Mnemonic.Lfs, loadFarPointer(4)],
  [Mnemonic.Lgs, loadFarPointer(5)],
]);
