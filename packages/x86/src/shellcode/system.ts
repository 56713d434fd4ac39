import { Mnemonic } from '../decoder.js';
import { NO_PRIVILEGE, UNSUPPORTED_INSTRUCTION } from './abort.js';
import type { Emulation } from './emulation.js';
import type { EmulatedInstruction, Handler } from './instruction.js';
import { ShellcodeFlag } from './shellcode-flags.js';

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RBX = 3;
const IF = 0x200;
const OF = 0x800;
/** What lies above is no system call (bddisasm, documentation of SHEMU_FLAG_SYSCALL). */
const SYSTEM_CALLS = 0x1000;
/** Interrupts through which Windows and Linux take system calls. */
const SYSTEM_CALL_VECTORS = new Set([0x2e, 0x80]);
/** Registers with the address of the system call handler: IA32_LSTAR and IA32_SYSENTER_EIP (SDM vol. 4, table 2-2). */
const LSTAR = 0xc000_0082;
const SYSENTER_EIP = 0x176;
/** The clock before the first instruction; it ticks once for each (what traces of bddisasm's emulator show). */
const CLOCK = 0x1248_fe7a_5c30;

/** No part of what the emulator knows. */
export const unknownInstruction: Handler = () => {
  throw UNSUPPORTED_INSTRUCTION;
};

/** A privileged instruction. */
export function needsRing0(handler: Handler = unknownInstruction): Handler {
  return (m, i) => {
    if (m.userMode) throw NO_PRIVILEGE;
    handler(m, i);
  };
}

/** INTO: only when OF is set, which the C emulator does not look at. */
function overflowTrap(m: Emulation): void {
  if (m.like === 'bddisasm' || (m.rflags & OF) !== 0) halt(m);
}

/** The end: what comes after it happens in the kernel, or not at all. */
function halt(m: Emulation): void {
  m.status = 'halted';
}

function noteSystemCall(m: Emulation): void {
  if (m.general[2 * RAX + 1] === 0 && m.general[2 * RAX]! < SYSTEM_CALLS) m.memory.raise(ShellcodeFlag.SYSCALL);
}

function systemCall(m: Emulation): void {
  noteSystemCall(m);
  halt(m);
}

function interrupt(m: Emulation, i: EmulatedInstruction): void {
  if (SYSTEM_CALL_VECTORS.has(i.immediateLow & 0xff)) noteSystemCall(m);
  halt(m);
}

function swapGs(m: Emulation): void {
  m.memory.raise(ShellcodeFlag.SWAPGS);
  halt(m);
}

function modelSpecific(flag: number): Handler {
  return (m) => {
    if (m.general[2 * RCX] === (m.wide ? LSTAR : SYSENTER_EIP)) m.memory.raise(flag);
    halt(m);
  };
}

function storeInterruptTable(m: Emulation): void {
  // User code cannot do much with the address.
  if (!m.userMode) m.memory.raise(ShellcodeFlag.SIDT);
  halt(m);
}

/** CPUID tells nothing: the emulation has no processor of its own. */
function identify(m: Emulation): void {
  for (const register of [RAX, RCX, RDX, RBX]) m.setGeneral(register, 4, 0, 0);
}

function readTimestamp(m: Emulation): void {
  const clock = CLOCK + m.instructions;
  m.setGeneral(RAX, 4, clock >>> 0, 0);
  m.setGeneral(RDX, 4, Math.floor(clock / 0x1_0000_0000), 0);
}

function readTimestampAndNumber(m: Emulation): void {
  readTimestamp(m);
  m.setGeneral(RCX, 4, 0, 0);
}

/** RDFSBASE and RDGSBASE. */
function readSegmentBase(segment: number): Handler {
  return (m, i) => {
    m.write(i, i.first, m.segmentBases[2 * segment]!, m.segmentBases[2 * segment + 1]!);
  };
}

/** Only ring 0 has IOPL here. */
function interruptFlag(value: number): Handler {
  return needsRing0((m) => m.setFlags(IF, value));
}

const NOT_FOLLOWED = [Mnemonic.Int1, Mnemonic.Int3, Mnemonic.Ud0, Mnemonic.Ud1, Mnemonic.Ud2];

/** What has to do with the kernel. */
export const systemHandlers = new Map<Mnemonic, Handler>([
  ...NOT_FOLLOWED.map((mnemonic): [Mnemonic, Handler] => [mnemonic, halt]),
  [Mnemonic.Int, interrupt],
  [Mnemonic.Into, overflowTrap],
  [Mnemonic.Syscall, systemCall],
  [Mnemonic.Sysenter, systemCall],
  [Mnemonic.Swapgs, swapGs],
  [Mnemonic.Rdmsr, modelSpecific(ShellcodeFlag.SYSCALL_MSR_READ)],
  [Mnemonic.Wrmsr, modelSpecific(ShellcodeFlag.SYSCALL_MSR_WRITE)],
  [Mnemonic.Sidt, storeInterruptTable],
  [Mnemonic.Cpuid, identify],
  [Mnemonic.Rdtsc, readTimestamp],
  [Mnemonic.Rdtscp, readTimestampAndNumber],
  [Mnemonic.Rdfsbase, readSegmentBase(4)],
  [Mnemonic.Rdgsbase, readSegmentBase(5)],
  [Mnemonic.Cli, interruptFlag(0)],
  [Mnemonic.Sti, interruptFlag(IF)],
]);
