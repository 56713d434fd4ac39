import { u32Index, type VcpuRecord } from '@introd/abi';
import { type DecodedInstruction, OperandKind } from '@introd/x86';

const RIP = u32Index('rip');
const RFLAGS = u32Index('rflags');
const CARRY = 1;
const PARITY = 4;
const AUXILIARY = 0x10;
const ZERO = 0x40;
const SIGN = 0x80;
const OVERFLOW = 0x800;
const STATUS = CARRY | PARITY | AUXILIARY | ZERO | SIGN | OVERFLOW;
const TRAP = 0x100;
const DIRECTION = 0x400;
const RESUME = 0x1_0000;

/** Opcodes of CMPS (SDM vol. 2A), and the prefixes that matter to it. */
const CMPS_8 = 0xa6;
const CMPS = 0xa7;
const REPEAT_NOT_EQUAL = 0xf2;
const ADDRESS_SIZE = 0x67;

/** Whether an instruction is CMPS: the only one that reads memory at two addresses of its own. */
export function isStringCompare({ bytes, memory }: DecodedInstruction): boolean {
  return (
    memory.length === 2 &&
    memory.some(({ kind }) => kind === OperandKind.STRING_SOURCE) &&
    memory.some(({ kind }) => kind === OperandKind.STRING_DESTINATION) &&
    (bytes.at(-1) === CMPS_8 || bytes.at(-1) === CMPS)
  );
}

/**
 * Makes one element of CMPS happen to the record of a VCPU (SDM vol. 2A, CMPS).
 * @param source what the guest shall see at RSI
 * @param destination the same at RDI, as many bytes
 * @returns false, and nothing is changed, when the processor would end the instruction with a trap
 */
export function compareStrings(
  instruction: DecodedInstruction,
  vcpu: VcpuRecord,
  source: Uint8Array,
  destination: Uint8Array,
): boolean {
  const registers = vcpu.u32;
  const flags = registers[RFLAGS]!;
  if ((flags & TRAP) !== 0) {
    return false;
  }
  const bits = source.length * 8;
  const first = little(source);
  const second = little(destination);
  const difference = BigInt.asUintN(bits, first - second);
  let status = first < second ? CARRY : 0;
  status |= difference === 0n ? ZERO : 0;
  status |= (difference >> BigInt(bits - 1)) & 1n ? SIGN : 0;
  status |= ((first ^ second) & (first ^ difference)) >> BigInt(bits - 1) ? OVERFLOW : 0;
  status |= Number((first ^ second ^ difference) & BigInt(AUXILIARY));
  status |= hasEvenParity(Number(difference & 0xffn)) ? PARITY : 0;
  registers[RFLAGS] = (flags & ~(STATUS | RESUME)) | status;

  const width = addressBits(instruction);
  const step = BigInt((flags & DIRECTION) !== 0 ? -source.length : source.length);
  move(vcpu, 'rsi', step, width);
  move(vcpu, 'rdi', step, width);
  let again = false;
  if (instruction.repeated) {
    const left = move(vcpu, 'rcx', -1n, width);
    const goesOnEqual = !instruction.bytes.subarray(0, -1).includes(REPEAT_NOT_EQUAL);
    again = left !== 0n && (difference === 0n) === goesOnEqual;
  }
  if (!again) {
    const next = registers[RIP]! + instruction.length;
    registers[RIP] = next;
    if (next > 0xffff_ffff && instruction.bitness === 64) {
      registers[RIP + 1] = registers[RIP + 1]! + 1;
    }
  }
  return true;
}

function little(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

function hasEvenParity(byte: number): boolean {
  const folded = byte ^ (byte >>> 4);
  return ((0x6996 >>> (folded & 0xf)) & 1) === 0;
}

function addressBits({ bytes, bitness }: DecodedInstruction): 16 | 32 | 64 {
  if (!bytes.subarray(0, -1).includes(ADDRESS_SIZE)) {
    return bitness;
  }
  return bitness === 32 ? 16 : 32;
}

/** Adds to a register by the rules for its parts: 32 bits clear the upper half, 16 keep it. @returns the part's new value */
function move(vcpu: VcpuRecord, register: 'rsi' | 'rdi' | 'rcx', by: bigint, width: 16 | 32 | 64): bigint {
  const before = vcpu.get(register);
  const after = BigInt.asUintN(width, before + by);
  vcpu.set(register, width === 16 ? (before & ~0xffffn) | after : after);
  return after;
}
