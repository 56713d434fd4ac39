import { u32Index, type VcpuRecord } from '@introd/abi';
import type { DecodedInstruction } from './decoded-instruction.js';
import { StoreEffect } from './store-effect.js';
import { StoreOperation } from './store-operation.js';
import { SourceKind } from './value-source.js';

/** Where vector registers can be read. */
export interface VectorRegisters {
  /**
   * Fills `target` (16, 32 or 64 bytes) with the lower bytes of a vector register.
   * @returns false when they are not to be had
   */
  readVector(register: number, target: Uint8Array): boolean;
}

const GENERAL = u32Index('rax');
const RIP = u32Index('rip');
const CS_SELECTOR = u32Index('csSelector');
/** Indices of the low half of the base, and of the limit. */
const IDT = [u32Index('idtBase'), u32Index('idtLimit')] as const;
const GDT = [u32Index('gdtBase'), u32Index('gdtLimit')] as const;
const RAX = 0;
const RCX = 1;
const RDX = 2;
const RBX = 3;

const effect = new StoreEffect();

/** Where a vector register is read to, by its size. */
const ZMM = new Uint8Array(64);
const YMM = ZMM.subarray(0, 32);
const XMM = ZMM.subarray(0, 16);

/** The 8 bytes at an offset of at most 8 bytes of memory, as halves; bytes that are missing count as 0. */
function half(bytes: Uint8Array, from: number): number {
  let value = 0;
  for (let at = 3; at >= 0; at--) {
    value = value * 256 + (bytes[from + at] ?? 0);
  }
  return value;
}

function putHalf(target: Uint8Array, from: number, value: number, size: number): void {
  for (let at = 0; at < 4 && from + at < size; at++) {
    target[from + at] = (value >>> (at * 8)) & 0xff;
  }
}

/**
 * The bytes that an instruction leaves in the memory operand that it stores to, computed without executing it: of a
 * repeated string instruction the next element.
 * @param old what the operand holds, `instruction.operandSize` bytes
 * @param target receives as many bytes
 * @param source what the source operand holds, when it is in memory; undefined when it cannot be read
 * @param vectors vector registers, for SSE and AVX stores
 * @returns false when the value is not known
 */
export function writtenValue(
  instruction: DecodedInstruction,
  vcpu: VcpuRecord,
  old: Uint8Array,
  target: Uint8Array,
  source?: Uint8Array,
  vectors?: VectorRegisters,
): boolean {
  const size = instruction.operandSize;
  switch (instruction.storeOperation) {
    case StoreOperation.NONE:
      return false;
    case StoreOperation.CMPXCHG16B:
      writtenBy16(vcpu.u32, old, target);
      return true;
    case StoreOperation.VECTOR: {
      const { register, byteOffset } = instruction.source;
      const bytes = byteOffset + size <= 16 ? XMM : byteOffset + size <= 32 ? YMM : ZMM;
      if (vectors === undefined || !vectors.readVector(register, bytes)) {
        return false;
      }
      for (let at = 0; at < size; at++) {
        target[at] = bytes[byteOffset + at]!;
      }
      return true;
    }
    case StoreOperation.VECTOR_MASKED:
      return vectors !== undefined && writtenMasked(instruction, vectors, old, target);
    case StoreOperation.COPY:
      if (source === undefined) {
        return false;
      }
      target.set(source.subarray(0, size));
      return true;
    case StoreOperation.PUSHA:
      writtenByPusha(vcpu.u32, size, target);
      return true;
    case StoreOperation.CALL_FAR: {
      const half = size / 2;
      const low = vcpu.u32[RIP]! + instruction.length;
      putHalf(target, 0, low >>> 0, half);
      putHalf(target, 4, (vcpu.u32[RIP + 1]! + (low > 0xffff_ffff ? 1 : 0)) >>> 0, half);
      target.fill(0, half, size);
      putHalf(target, half, vcpu.u32[CS_SELECTOR]! & 0xffff, size);
      return true;
    }
    case StoreOperation.SIDT:
    case StoreOperation.SGDT: {
      const [base, limit] = instruction.storeOperation === StoreOperation.SIDT ? IDT : GDT;
      putHalf(target, 0, vcpu.u32[limit]! & 0xffff, 2);
      putHalf(target, 2, vcpu.u32[base]!, size);
      putHalf(target, 6, vcpu.u32[base + 1]!, size);
      return true;
    }
    default:
  }
  if (instruction.source.kind === SourceKind.MEMORY && source === undefined) {
    return false;
  }
  const from = source ?? EMPTY;
  if (!effect.compute(instruction, vcpu, half(old, 0), half(old, 4), half(from, 0), half(from, 4))) {
    return false;
  }
  putHalf(target, 0, effect.newLow, size);
  putHalf(target, 4, effect.newHigh, size);
  return true;
}

const EMPTY = new Uint8Array(0);

function writtenBy16(registers: Uint32Array, old: Uint8Array, target: Uint8Array): void {
  const equal =
    half(old, 0) === registers[GENERAL + RAX * 2] &&
    half(old, 4) === registers[GENERAL + RAX * 2 + 1] &&
    half(old, 8) === registers[GENERAL + RDX * 2] &&
    half(old, 12) === registers[GENERAL + RDX * 2 + 1];
  if (!equal) {
    target.set(old.subarray(0, 16));
    return;
  }
  putHalf(target, 0, registers[GENERAL + RBX * 2]!, 16);
  putHalf(target, 4, registers[GENERAL + RBX * 2 + 1]!, 16);
  putHalf(target, 8, registers[GENERAL + RCX * 2]!, 16);
  putHalf(target, 12, registers[GENERAL + RCX * 2 + 1]!, 16);
}

/** PUSHA: EDI lies lowest, EAX highest; ESP is stored as it was before (SDM vol. 2B, PUSHA). */
function writtenByPusha(registers: Uint32Array, size: number, target: Uint8Array): void {
  const each = size / 8;
  for (let register = 0; register < 8; register++) {
    const at = (7 - register) * each;
    putHalf(target, at, registers[GENERAL + register * 2]!, at + each);
  }
}

/** MASKMOVDQU: bytes whose byte in the mask has its sign bit set (SDM vol. 2B). */
function writtenMasked(
  instruction: DecodedInstruction,
  vectors: VectorRegisters,
  old: Uint8Array,
  target: Uint8Array,
): boolean {
  const { register, mask } = instruction.source;
  const bytes = new Uint8Array(16);
  const selected = new Uint8Array(16);
  if (!vectors.readVector(register, bytes) || !vectors.readVector(mask, selected)) {
    return false;
  }
  for (let at = 0; at < 16; at++) {
    target[at] = (selected[at]! & 0x80) === 0 ? old[at]! : bytes[at]!;
  }
  return true;
}
