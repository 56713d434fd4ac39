import { Register } from 'iced-x86';
import type { Draft } from './draft.js';
import { gprRegister } from './register-names.js';
import { LAYOUT } from './test-case.js';

const RSP = 4;
const MASK_32 = 0xffff_ffffn;

/**
 * Gives the instruction a memory operand of a random shape, and registers that make it point to `draft.target()`.
 *
 * @param shape `offset` for the forms that hold the whole address (MOV AL, moffs8)
 */
export function addressMemory(draft: Draft, shape: 'any' | 'offset'): void {
  const { random, instruction } = draft;
  draft.address32 = random.oneIn(8) || draft.bitness === 32;
  const address = draft.target(draft.memorySize, alignmentOf(draft));
  draft.memoryAddress = address;
  let segmentBase = 0;
  if (random.oneIn(12) && draft.mnemonic !== 'Lea') {
    if (draft.bitness === 64) {
      instruction.segmentPrefix = Register.GS;
      segmentBase = LAYOUT.gsBase;
    } else {
      // Flat; a store through CS is #GP, whose selector in GS would be none at all.
      instruction.segmentPrefix = random.pick([
        draft.mayUseCodeSegment ? Register.CS : Register.DS,
        Register.SS,
        Register.DS,
        Register.ES,
      ]);
    }
  }
  const effective = BigInt(address - segmentBase);
  if (shape === 'offset') {
    instruction.memoryDisplSize = draft.address32 ? 4 : 8;
    instruction.memoryDisplacement = effective;
  } else if (random.oneIn(80) && !draft.address32 && !draft.safeAddress) {
    nonCanonical(draft);
    return;
  } else {
    switch (random.below(9)) {
      case 0:
        if (draft.bitness === 64) relativeToRip(draft, effective);
        else absolute(draft, effective);
        break;
      case 1:
        absolute(draft, effective);
        break;
      case 2:
        indexOnly(draft, effective);
        break;
      case 3:
      case 4:
      case 5:
        baseAndIndex(draft, effective);
        break;
      default:
        baseOnly(draft, effective);
    }
  }
  if (draft.memorySize > 0) draft.patchValue(address, random.edge() | (random.edge() << 64n), draft.memorySize);
}

function alignmentOf(draft: Draft): number {
  return draft.memorySize === 16 ? 16 : 1;
}

function register(draft: Draft, number: number): Register {
  return gprRegister(number, draft.address32 ? 32 : 64);
}

/** Registers of a 32-bit address have garbage above it. */
function pinAddress(draft: Draft, number: number, value: bigint): void {
  draft.pin(number, draft.address32 ? (draft.random.u64() & ~MASK_32) | BigInt.asUintN(32, value) : value);
}

function setDisplacement(draft: Draft, size: number, value: bigint): void {
  const { instruction } = draft;
  instruction.memoryDisplSize = size === 1 || size === 0 ? size : draft.address32 ? 4 : 8;
  instruction.memoryDisplacement = draft.address32 ? BigInt.asUintN(32, value) : BigInt.asUintN(64, value);
}

/** No displacement, 8 bits, or 32 bits; small ones where RSP has to stay on the stack. */
function drawDisplacement(draft: Draft, small: boolean): { size: number; value: bigint } {
  const { random } = draft;
  const choice = random.below(4);
  if (choice === 0) return { size: 0, value: 0n };
  if (choice === 1 || small) return { size: 1, value: BigInt(random.below(256) - 128) };
  const bits = random.pick([9, 16, 24, 31]);
  return {
    size: 4,
    value: BigInt.asIntN(32, random.u64() & ((1n << BigInt(bits)) - 1n)) * (random.oneIn(2) ? 1n : -1n),
  };
}

function baseOnly(draft: Draft, effective: bigint): void {
  const base = draft.random.below(draft.registers);
  const displacement = drawDisplacement(draft, base === RSP && draft.usesStack);
  draft.instruction.memoryBase = register(draft, base);
  setDisplacement(draft, displacement.size, displacement.value);
  pinAddress(draft, base, effective - displacement.value);
}

function baseAndIndex(draft: Draft, effective: bigint): void {
  const { random, instruction } = draft;
  const base = random.below(draft.registers);
  const index = drawIndex(draft);
  const scale = random.pick([1, 2, 4, 8]);
  instruction.memoryBase = register(draft, base);
  instruction.memoryIndex = register(draft, index);
  instruction.memoryIndexScale = scale;
  if (base === index) {
    const value = BigInt(random.below(1 << 24));
    setDisplacement(draft, 4, effective - value * BigInt(scale + 1));
    pinAddress(draft, base, value);
    return;
  }
  const displacement = drawDisplacement(draft, base === RSP && draft.usesStack);
  setDisplacement(draft, displacement.size, displacement.value);
  if (base === RSP && draft.usesStack) pinAddress(draft, index, BigInt(random.below(64) - 32));
  else draft.keep(index);
  pinAddress(draft, base, effective - displacement.value - draft.gpr(index) * BigInt(scale));
}

function indexOnly(draft: Draft, effective: bigint): void {
  const { random, instruction } = draft;
  const index = drawIndex(draft);
  const scale = random.pick([2, 4, 8]);
  const value = BigInt(random.below(1 << 24));
  instruction.memoryIndex = register(draft, index);
  instruction.memoryIndexScale = scale;
  setDisplacement(draft, 4, effective - value * BigInt(scale));
  pinAddress(draft, index, value);
}

function drawIndex(draft: Draft): number {
  const index = draft.random.below(draft.registers - 1);
  return index >= RSP ? index + 1 : index;
}

function relativeToRip(draft: Draft, effective: bigint): void {
  draft.instruction.memoryBase = draft.address32 ? Register.EIP : Register.RIP;
  draft.instruction.memoryDisplSize = draft.address32 ? 4 : 8;
  draft.instruction.memoryDisplacement = BigInt.asUintN(64, effective);
}

function absolute(draft: Draft, effective: bigint): void {
  setDisplacement(draft, 4, effective);
}

/** An address that is not canonical: #GP, or #SS by way of RSP and RBP. */
function nonCanonical(draft: Draft): void {
  const { random, instruction } = draft;
  instruction.segmentPrefix = Register.None;
  draft.memoryAddress = undefined;
  const base = random.below(16);
  instruction.memoryBase = register(draft, base);
  setDisplacement(draft, 0, 0n);
  draft.pin(base, 0x8000_0000_0000n + (random.u64() & 0x3fff_ffff_ffffn) * 2n);
}
