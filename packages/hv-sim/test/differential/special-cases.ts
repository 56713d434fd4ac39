import type { Register } from 'iced-x86';
import { type Draft, Retry } from './draft.js';
import { type Gpr, registerPart } from './register-names.js';
import { Flag, LAYOUT, MEMORY_SIZE, SELECTORS } from './test-case.js';

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RBX = 3;
const RSP = 4;
const RBP = 5;
const RSI = 6;
const RDI = 7;

const SHIFTS = new Set(['Rol', 'Ror', 'Rcl', 'Rcr', 'Shl', 'Sal', 'Shr', 'Sar', 'Shld', 'Shrd']);
const STACK = /^(Push|Pop|Call|Ret|Iret|Enter|Leave)/;
const STRINGS = /^(Movs[bwdq]_m|Cmps[bwdq]_m|Stos|Lods|Scas)/;
const BIT_STRINGS = new Set(['Bt', 'Bts', 'Btr', 'Btc']);
const VECTOR_SHIFTS = /^Ps(ll|rl|ra)[wdq]$/;
const LOOPS = new Set(['Loop', 'Loope', 'Loopne', 'Jrcxz', 'Jecxz', 'Jcxz']);

/** Flags that a test may load: not TF and AC, which fault by themselves afterwards, not NT, and nothing reserved. */
const LOADABLE_FLAGS = 0x3f_ffffn & ~BigInt((1 << 8) | (1 << 14) | (1 << 18));

/** Null, the host's data segment, and selectors behind the ends of its tables. */
const SEGMENT_VALUES = [0, 1, 2, 3, SELECTORS.stack, SELECTORS.stack, 0xfff8, 0x7ffb];

const COUNTS = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 255];

/** What has to be known before the operands are drawn. */
export function prepare(draft: Draft): void {
  const { random, mnemonic, form } = draft;
  if (random.oneIn(16)) draft.before.rflags |= Flag.DF;
  draft.usesStack = STACK.test(mnemonic);
  if (draft.usesStack) prepareStack(draft);
  if (SHIFTS.has(mnemonic)) prepareShift(draft);
  if (STRINGS.test(form)) draft.address32 = random.oneIn(8) || draft.bitness === 32;
  if (mnemonic === 'Xlatb' || mnemonic === 'Maskmovdqu') draft.address32 = random.oneIn(8) || draft.bitness === 32;
  if (mnemonic === 'Enter') {
    // Not so far down that the frame would reach the code pages, which the host can write.
    draft.presetImmediates(
      BigInt(random.oneIn(30) ? random.below(0xd000) : random.below(0x300)),
      BigInt(random.oneIn(2) ? 0 : random.below(random.oneIn(8) ? 256 : 6)),
    );
  }
  // Vectors for which neither the host nor the machine has a gate that user code may use.
  if (mnemonic === 'Int')
    draft.presetImmediates(BigInt(random.oneIn(2) ? 0x20 + random.below(0x60) : 0x81 + random.below(0x7f)));
  if (mnemonic === 'Ret' && form.includes('imm16'))
    draft.presetImmediates(BigInt(random.oneIn(2) ? random.below(64) : random.below(0x10000)));
  // Processors differ in whether an ARPL that changes nothing needs to be able to write; the machine says yes.
  if (mnemonic === 'Arpl') draft.safeAddress = true;
  // Where execution goes must be the code pages.
  if (mnemonic === 'Call' || mnemonic === 'Jmp') draft.safeAddress = true;
}

function prepareStack(draft: Draft): void {
  const { random, mnemonic } = draft;
  if (mnemonic === 'Leave') {
    draft.pin(RBP, BigInt(draft.stackPointer()));
    return;
  }
  // RSP as a base register of the operand must point into the stack as well; both then come from the address.
  if (mnemonic === 'Enter') draft.pin(RBP, BigInt(LAYOUT.data + 0x800 + (random.below(LAYOUT.dataSize - 0x1000) & -8)));
}

function prepareShift(draft: Draft): void {
  const { random, form } = draft;
  draft.presetImmediates(BigInt(random.pick(COUNTS)));
  if (!form.endsWith('_CL')) return;
  draft.before.gpr[RCX] = (draft.gpr(RCX) & ~0xffn) | BigInt(random.pick(COUNTS));
}

/** What depends on the operands that were drawn. */
export function settle(draft: Draft): void {
  const { mnemonic, form } = draft;
  if (SHIFTS.has(mnemonic)) settleShift(draft);
  if (draft.usesStack && mnemonic !== 'Leave') settleStack(draft);
  if (STRINGS.test(form)) settleString(draft);
  if (BIT_STRINGS.has(mnemonic)) settleBitString(draft);
  if (LOOPS.has(mnemonic)) settleLoop(draft);
  if (VECTOR_SHIFTS.test(mnemonic)) settleVectorShift(draft);
  SETTLE[mnemonic]?.(draft);
}

/** What else depends on the operands, by mnemonic. */
const SETTLE: Readonly<Record<string, (draft: Draft) => void>> = {
  Div: settleDivision,
  Idiv: settleDivision,
  Call: settleIndirectBranch,
  Jmp: settleIndirectBranch,
  Cmpxchg: settleCompareExchange,
  Cmpxchg8b: (draft) => settleWideCompareExchange(draft, 4),
  Cmpxchg16b: (draft) => settleWideCompareExchange(draft, 8),
  Xlatb: (draft) => pinPointer(draft, RBX, draft.target(1) - Number(draft.gpr(RAX) & 0xffn)),
  Mov: settleSegmentLoad,
  Bsf: settleBitScan,
  Bsr: settleBitScan,
  Bextr: settleBitFieldExtract,
  Ldmxcsr: settleControlWord,
  Maskmovdqu: settleMaskMove,
};

function settleBitFieldExtract(draft: Draft): void {
  const { random } = draft;
  // Start and length of the field, mostly such that something is left of it.
  const control = partOf(draft.operandRegisters.at(-1) as Register).number;
  draft.tryPin(control, random.oneIn(2) ? BigInt(random.below(0x5050)) : random.edge());
}

function partOf(register: Register): { number: number; bits: Gpr; shift: number } {
  const part = registerPart(register);
  if (part === undefined) throw new Retry();
  return part;
}

/** Pins a pointer register, with garbage above a 32-bit address. */
function pinPointer(draft: Draft, number: number, address: number): void {
  const high = draft.address32 ? draft.random.u64() & ~0xffff_ffffn : 0n;
  draft.pin(number, high | BigInt.asUintN(draft.address32 ? 32 : 64, BigInt(address)));
}

function settleShift(draft: Draft): void {
  const { form } = draft;
  draft.keep(RCX);
  const count = form.endsWith('_CL') ? Number(draft.gpr(RCX) & 0xffn) : form.endsWith('_1') ? 1 : draft.lastImmediate;
  draft.shift = { count, bits: draft.operandBits };
  // A 16-bit double shift by more than 16 leaves everything undefined, the result included.
  if (form.startsWith('Sh') && /^Sh[lr]d/.test(form) && draft.operandBits === 16 && (count & 31) > 16)
    throw new Retry();
}

function settleStack(draft: Draft): void {
  const { mnemonic, random } = draft;
  if (!draft.isPinned(RSP)) draft.pin(RSP, BigInt(draft.stackPointer()));
  const top = Number(BigInt.asIntN(53, draft.gpr(RSP)));
  if (mnemonic.startsWith('Iret')) settleInterruptReturn(draft);
  if (mnemonic === 'Ret') {
    if (
      !draft.patchValue(top, BigInt(draft.branchTarget(false)), draft.pointerSize) &&
      top >= LAYOUT.data - 8 &&
      top < LAYOUT.data + 0x6000
    ) {
      // Half of a return address in other memory would lead anywhere.
      if (top > LAYOUT.data - 8 && top < LAYOUT.readOnly + LAYOUT.readOnlySize) throw new Retry();
    }
  }
  if (/^Pop[wd]_[ED]S$|^Pop[wd]_SS$/.test(draft.form)) {
    if (!draft.patchValue(top, BigInt(random.pick(SEGMENT_VALUES)), 2)) throw new Retry();
  }
  if (mnemonic.startsWith('Popf')) {
    const size = draft.form.endsWith('w') ? 2 : draft.pointerSize;
    if (!draft.patchValue(top, random.u64() & LOADABLE_FLAGS, size)) {
      if (top + size > LAYOUT.data && top < LAYOUT.readOnly + LAYOUT.readOnlySize) throw new Retry();
    }
  }
}

/** A frame for IRET to the same privilege level; the processor pops RSP and SS there too, in 64-bit mode alone. */
function settleInterruptReturn(draft: Draft): void {
  const { random } = draft;
  const size = draft.mnemonic === 'Iretq' ? 8 : 4;
  const top = Number(BigInt.asIntN(53, draft.gpr(RSP)));
  const frame = [
    BigInt(draft.branchTarget(false)),
    BigInt(draft.bitness === 64 ? SELECTORS.code : SELECTORS.code32),
    random.u64() & LOADABLE_FLAGS,
    ...(draft.bitness === 64 ? [random.edge(), BigInt(SELECTORS.stack)] : []),
  ];
  // Half a frame would be one with selectors of any kind.
  if (!frame.every((value, i) => draft.patchValue(top + i * size, value, size))) throw new Retry();
}

function settleString(draft: Draft): void {
  const { random, form, instruction, mnemonic } = draft;
  const size = { b: 1, w: 2, d: 4, q: 8 }[form.charAt(4)] as number;
  const compares = mnemonic.startsWith('Cmps') || mnemonic.startsWith('Scas');
  const hasSource = /^(Movs|Cmps|Lods)/.test(form);
  const hasDestination = !form.startsWith('Lods');
  if (random.oneIn(2)) draft.before.rflags |= Flag.DF;
  else draft.before.rflags &= ~Flag.DF;
  let count = 1;
  if (!random.oneIn(3)) {
    if (compares && random.oneIn(2)) instruction.hasRepnePrefix = true;
    else instruction.hasRepPrefix = true;
    count = random.oneIn(10) ? 0 : random.below(random.oneIn(8) ? 200 : 16);
    const garbage = draft.address32 ? random.u64() & ~0xffff_ffffn : 0n;
    draft.pin(RCX, garbage | BigInt(count));
  }
  const source = draft.target(size);
  let destination = draft.target(size);
  // Overlap matters: a copy forward over itself repeats what it wrote.
  if (hasSource && hasDestination && random.oneIn(4)) destination = source + random.below(33) - 16;
  if (hasSource) pinPointer(draft, RSI, source);
  if (hasDestination) pinPointer(draft, RDI, destination);
  // Which of two faults of one element is reported differs even on one processor.
  const reach = (count + 1) * size;
  if (mnemonic.startsWith('Cmps') && mayLeaveMemory(source, reach) && mayLeaveMemory(destination, reach))
    throw new Retry();
  if (compares) makeEqual(draft, size, count, hasSource ? source : undefined, destination);
}

/** Whether some byte within that distance of an address is not mapped. */
function mayLeaveMemory(address: number, distance: number): boolean {
  return address - distance < LAYOUT.data || address + distance > LAYOUT.data + MEMORY_SIZE;
}

/** Makes most elements of a comparison equal, so that a repeated one goes on. */
function makeEqual(draft: Draft, size: number, count: number, source: number | undefined, destination: number): void {
  const { random } = draft;
  if (random.oneIn(3)) return;
  const step = (draft.before.rflags & Flag.DF) !== 0 ? -size : size;
  const element = source === undefined ? draft.gpr(RAX) : random.edge();
  const different = random.below(count + 2);
  for (let i = 0; i <= Math.min(count, 16); i++) {
    const value = i === different ? random.edge() : element;
    // REPNE goes on while elements differ: there the odd one out is the equal one.
    const other = draft.instruction.hasRepnePrefix
      ? BigInt.asUintN(64, value + BigInt(i === different ? 0 : 1))
      : value;
    if (source !== undefined) draft.patchValue(source + i * step, element, size);
    draft.patchValue(
      destination + i * step,
      draft.instruction.hasRepnePrefix && i === different ? element : other,
      size,
    );
  }
}

function settleBitString(draft: Draft): void {
  const { random, form } = draft;
  if (draft.memoryAddress === undefined || form.includes('imm8')) return;
  // The bit offset moves the address; keep most of them within the data. That depends on the register's own width.
  const offset = partOf(draft.operandRegisters.at(-1) as Register);
  if (draft.isPinned(offset.number)) throw new Retry();
  const room = random.pick([32, 256, 8 * 0x1000, 8 * 0x3000]);
  const bit = BigInt(random.below(2 * room) - room);
  const mask = (1n << BigInt(offset.bits)) - 1n;
  draft.pin(offset.number, (draft.gpr(offset.number) & ~mask) | (bit & mask));
}

function settleLoop(draft: Draft): void {
  const { random } = draft;
  draft.pin(RCX, random.pick([0n, 1n, 2n, 0x1_0000_0000n, 0x1_0000_0001n, 0xffff_ffffn, random.edge()]));
}

/** Value of the operand that DIV divides by. */
function settleDivision(draft: Draft): void {
  const { random } = draft;
  if (random.oneIn(4)) return;
  const bits = BigInt(draft.operandBits);
  let divisor: bigint;
  const [register] = draft.operandRegisters;
  if (register !== undefined) {
    const part = partOf(register);
    divisor = BigInt.asUintN(part.bits, draft.gpr(part.number) >> BigInt(part.shift));
    // Dividing by a part of the dividend: whatever comes out.
    if (part.number === RAX || part.number === RDX) return;
  } else {
    if (draft.memoryAddress === undefined) return;
    divisor = BigInt.asUintN(Number(bits), random.edge() >> BigInt(random.below(Number(bits))));
    if (!draft.patchValue(draft.memoryAddress, divisor, draft.memorySize)) return;
  }
  if (divisor === 0n) return;
  const signed = draft.mnemonic === 'Idiv';
  const asNumber = (value: bigint): bigint =>
    signed ? BigInt.asIntN(Number(bits), value) : BigInt.asUintN(Number(bits), value);
  const d = asNumber(divisor);
  const magnitude = d < 0n ? -d : d;
  const quotient = asNumber(random.edge());
  const remainder = random.u64() % magnitude;
  // The remainder has the dividend's sign. One quotient too many now and then: #DE at the very edge.
  const negative = signed && quotient < 0n !== d < 0n;
  const dividend = quotient * d + (negative ? -remainder : remainder) + (random.oneIn(12) ? magnitude : 0n);
  const low = BigInt.asUintN(Number(bits), dividend);
  const high = BigInt.asUintN(Number(bits), dividend >> bits);
  if (bits === 8n) {
    draft.tryPin(RAX, (draft.gpr(RAX) & ~0xffffn) | (high << 8n) | low);
    return;
  }
  const keepHigh = bits === 16n ? ~0xffffn : 0n;
  draft.tryPin(RAX, (draft.gpr(RAX) & keepHigh) | low);
  draft.tryPin(RDX, (draft.gpr(RDX) & keepHigh) | high);
}

function settleIndirectBranch(draft: Draft): void {
  const { form } = draft;
  if (!form.includes('_rm')) return;
  const target = BigInt(draft.branchTarget(false));
  const [register] = draft.operandRegisters;
  if (register !== undefined) draft.pin(partOf(register).number, target);
  else if (draft.memoryAddress === undefined || !draft.patchValue(draft.memoryAddress, target, draft.pointerSize))
    throw new Retry();
  // CALL pushes before it jumps; the target must not be what it overwrites, but it reads it first, so that is fine.
}

function settleCompareExchange(draft: Draft): void {
  if (draft.random.oneIn(2)) return;
  const mask = (1n << BigInt(draft.operandBits)) - 1n;
  const inMemory = draft.memoryAddress;
  if (inMemory !== undefined) {
    draft.patchValue(inMemory, draft.gpr(RAX) & mask, draft.memorySize);
    draft.keep(RAX);
    return;
  }
  const part = partOf(draft.operandRegisters[0] as Register);
  const value = BigInt.asUintN(part.bits, draft.gpr(part.number) >> BigInt(part.shift));
  if (part.number !== RAX) draft.tryPin(RAX, (draft.gpr(RAX) & ~mask) | value);
}

function settleWideCompareExchange(draft: Draft, half: number): void {
  const { random, memoryAddress } = draft;
  if (memoryAddress === undefined || random.oneIn(3)) return;
  const mask = (1n << BigInt(half * 8)) - 1n;
  const value = ((draft.gpr(RDX) & mask) << BigInt(half * 8)) | (draft.gpr(RAX) & mask);
  draft.patchValue(memoryAddress, random.oneIn(5) ? value ^ (1n << BigInt(random.below(half * 16))) : value, half * 2);
}

function settleSegmentLoad(draft: Draft): void {
  if (!draft.form.startsWith('Mov_Sreg')) return;
  const { random } = draft;
  const value = BigInt(random.pick(SEGMENT_VALUES));
  const register = draft.operandRegisters[1];
  if (register !== undefined) {
    const { number } = partOf(register);
    draft.tryPin(number, (draft.gpr(number) & ~0xffffn) | value);
    if ((draft.gpr(number) & 0xffffn) !== value) throw new Retry();
  } else if (draft.memoryAddress !== undefined && !draft.patchValue(draft.memoryAddress, value, 2)) throw new Retry();
}

function settleControlWord(draft: Draft): void {
  // With a reserved bit it is #GP, so most random values are.
  if (draft.memoryAddress !== undefined && !draft.random.oneIn(3)) {
    draft.patchValue(draft.memoryAddress, draft.random.u64() & 0xffffn, 4);
  }
}

/** Which bytes a fault is about where some are masked out differs by processor: only memory that can be written. */
function settleMaskMove(draft: Draft): void {
  draft.safeAddress = true;
  pinPointer(draft, RDI, draft.target(16));
}

/** Most counts of 64 random bits leave nothing of the elements. */
function settleVectorShift(draft: Draft): void {
  const { memoryAddress, random } = draft;
  if (memoryAddress !== undefined && !random.oneIn(4)) draft.patchValue(memoryAddress, BigInt(random.below(80)), 8);
}

function settleBitScan(draft: Draft): void {
  const { random } = draft;
  const source = draft.operandRegisters[1];
  // Few bits set: the interesting positions.
  const value = random.oneIn(6)
    ? 0n
    : (1n << BigInt(random.below(draft.operandBits))) | (random.oneIn(2) ? random.edge() : 0n);
  if (source !== undefined) draft.tryPin(partOf(source).number, value);
  else if (draft.memoryAddress !== undefined) draft.patchValue(draft.memoryAddress, value, draft.memorySize);
}
