// The executor's loop: fetches decoded operations, follows the links between them, and does the common ones itself,
// one case for each form and size. The others are in exec-generic.ts; what belongs to the machine is in system.ts.
//
// An operation first makes all memory accesses that may fail, and then commits. `fault` is looked at after each access.

import { alu, aluOfKind, condition, conditionHolds, cut, unary } from './alu';
import { execGeneric } from './exec-generic';
import { attention, FAULT_NON_CANONICAL, fault, raise } from './fault';
import {
  ALU_ADC,
  ALU_ADD,
  ALU_AND,
  ALU_CMP,
  ALU_OR,
  ALU_SBB,
  ALU_SUB,
  ALU_TEST,
  ALU_XOR,
  CONDITION_A,
  CONDITION_AE,
  CONDITION_B,
  CONDITION_BE,
  CONDITION_E,
  CONDITION_G,
  CONDITION_GE,
  CONDITION_L,
  CONDITION_LE,
  CONDITION_NE,
  CONDITION_NO,
  CONDITION_NP,
  CONDITION_NS,
  CONDITION_O,
  CONDITION_P,
  CONDITION_S,
  FLAG_NEXT_IN_PAGE,
  FLAG_STACK,
  FLAG_TARGET_IN_PAGE,
  FLAG_UNLINKED,
  I_ADC_MI_32,
  I_ADC_MI_64,
  I_ADC_MR_32,
  I_ADC_MR_64,
  I_ADC_RI_32,
  I_ADC_RI_64,
  I_ADC_RM_32,
  I_ADC_RM_64,
  I_ADC_RR_32,
  I_ADC_RR_64,
  I_ADD_MI_32,
  I_ADD_MI_64,
  I_ADD_MR_32,
  I_ADD_MR_64,
  I_ADD_RI_32,
  I_ADD_RI_64,
  I_ADD_RM_32,
  I_ADD_RM_64,
  I_ADD_RR_32,
  I_ADD_RR_64,
  I_ALU_MI_8,
  I_ALU_MI_16,
  I_ALU_MR_8,
  I_ALU_MR_16,
  I_ALU_RI_8,
  I_ALU_RI_16,
  I_ALU_RM_8,
  I_ALU_RM_16,
  I_ALU_RR_8,
  I_ALU_RR_16,
  I_AND_MI_32,
  I_AND_MI_64,
  I_AND_MR_32,
  I_AND_MR_64,
  I_AND_RI_32,
  I_AND_RI_64,
  I_AND_RM_32,
  I_AND_RM_64,
  I_AND_RR_32,
  I_AND_RR_64,
  I_CALL,
  I_CALL_M,
  I_CALL_R,
  I_CMOV_32_M,
  I_CMOV_32_R,
  I_CMOV_64_M,
  I_CMOV_64_R,
  I_CMP_MI_32,
  I_CMP_MI_64,
  I_CMP_MR_32,
  I_CMP_MR_64,
  I_CMP_RI_32,
  I_CMP_RI_64,
  I_CMP_RM_32,
  I_CMP_RM_64,
  I_CMP_RR_32,
  I_CMP_RR_64,
  I_DEC_R_32,
  I_DEC_R_64,
  I_IMUL_RM_32,
  I_IMUL_RM_64,
  I_IMUL_RR_32,
  I_IMUL_RR_64,
  I_INC_R_32,
  I_INC_R_64,
  I_JA,
  I_JAE,
  I_JB,
  I_JBE,
  I_JE,
  I_JG,
  I_JGE,
  I_JL,
  I_JLE,
  I_JMP,
  I_JMP_M,
  I_JMP_R,
  I_JNE,
  I_JNO,
  I_JNP,
  I_JNS,
  I_JO,
  I_JP,
  I_JS,
  I_LEA_32,
  I_LEA_64,
  I_LEAVE,
  I_MOV_MI_8,
  I_MOV_MI_16,
  I_MOV_MI_32,
  I_MOV_MI_64,
  I_MOV_MR_8,
  I_MOV_MR_16,
  I_MOV_MR_32,
  I_MOV_MR_64,
  I_MOV_RI_8,
  I_MOV_RI_16,
  I_MOV_RI_32,
  I_MOV_RI_64,
  I_MOV_RM_8,
  I_MOV_RM_16,
  I_MOV_RM_32,
  I_MOV_RM_64,
  I_MOV_RR_8,
  I_MOV_RR_16,
  I_MOV_RR_32,
  I_MOV_RR_64,
  I_MOVSX_32_M8,
  I_MOVSX_32_M16,
  I_MOVSX_32_R8,
  I_MOVSX_32_R16,
  I_MOVSX_64_M8,
  I_MOVSX_64_M16,
  I_MOVSX_64_M32,
  I_MOVSX_64_R8,
  I_MOVSX_64_R16,
  I_MOVSX_64_R32,
  I_MOVZX_32_M8,
  I_MOVZX_32_M16,
  I_MOVZX_32_R8,
  I_MOVZX_32_R16,
  I_NEG_R_32,
  I_NEG_R_64,
  I_NOP,
  I_NOT_R_32,
  I_NOT_R_64,
  I_OR_MI_32,
  I_OR_MI_64,
  I_OR_MR_32,
  I_OR_MR_64,
  I_OR_RI_32,
  I_OR_RI_64,
  I_OR_RM_32,
  I_OR_RM_64,
  I_OR_RR_32,
  I_OR_RR_64,
  I_POP_R,
  I_PUSH_I,
  I_PUSH_M,
  I_PUSH_R,
  I_RET,
  I_RET_I,
  I_SAR_RI_32,
  I_SAR_RI_64,
  I_SBB_MI_32,
  I_SBB_MI_64,
  I_SBB_MR_32,
  I_SBB_MR_64,
  I_SBB_RI_32,
  I_SBB_RI_64,
  I_SBB_RM_32,
  I_SBB_RM_64,
  I_SBB_RR_32,
  I_SBB_RR_64,
  I_SETCC_M,
  I_SETCC_R,
  I_SHL_RI_32,
  I_SHL_RI_64,
  I_SHR_RI_32,
  I_SHR_RI_64,
  I_SUB_MI_32,
  I_SUB_MI_64,
  I_SUB_MR_32,
  I_SUB_MR_64,
  I_SUB_RI_32,
  I_SUB_RI_64,
  I_SUB_RM_32,
  I_SUB_RM_64,
  I_SUB_RR_32,
  I_SUB_RR_64,
  I_SYSTEM_BASE,
  I_TEST_MI_32,
  I_TEST_MI_64,
  I_TEST_MR_32,
  I_TEST_MR_64,
  I_TEST_RI_32,
  I_TEST_RI_64,
  I_TEST_RM_32,
  I_TEST_RM_64,
  I_TEST_RR_32,
  I_TEST_RR_64,
  I_XOR_MI_32,
  I_XOR_MI_64,
  I_XOR_MR_32,
  I_XOR_MR_64,
  I_XOR_RI_32,
  I_XOR_RI_64,
  I_XOR_RM_32,
  I_XOR_RM_64,
  I_XOR_RR_32,
  I_XOR_RR_64,
  OP_CODE,
  OP_DST,
  OP_FLAGS,
  OP_IMM,
  OP_KIND,
  OP_LENGTH,
  OP_NEXT,
  OP_SRC,
  OP_TAKEN,
  OP_UNLINKED,
  SHIFT_SAR,
  SHIFT_SHL,
  SHIFT_SHR,
  UNARY_DEC,
  UNARY_INC,
  UNARY_NEG,
  UNARY_NOT,
  VCPU_RIP,
} from './generated/layout';
import { cacheGeneration, fetch, load64, store8 } from './memory';
import { multiply } from './multiply';
import { effectiveAddress, effectiveOffset, loadForUpdate, loadMemory, storeMemory, storeUpdated } from './operand';
import { shift } from './shift';
import { call, jumpTarget, leave, popRegister, push64, pushMemory, ret } from './stack';
import { cpu, flags, register, ripSet, setRegister, setRemaining, setRipSet } from './state';
import { execSystem } from './system';

// @ts-ignore: decorator
@inline
function dst(op: usize): usize {
  return load<u16>(op, OP_DST);
}

// @ts-ignore: decorator
@inline
function src(op: usize): usize {
  return load<u16>(op, OP_SRC);
}

// @ts-ignore: decorator
@inline
function length(op: usize): u32 {
  return load<u8>(op, OP_LENGTH);
}

/** Whether the result of this kind is dropped. */
// @ts-ignore: decorator
@inline
function compares(kind: u32): bool {
  return kind == ALU_CMP || kind == ALU_TEST;
}

// @ts-ignore: decorator
@inline
function aluRegisterRegister<T>(kind: u32, op: usize): void {
  const result = alu<T>(kind, register<T>(dst(op)), register<T>(src(op)));
  if (!compares(kind)) setRegister<T>(dst(op), result);
}

// @ts-ignore: decorator
@inline
function aluRegisterImmediate<T>(kind: u32, op: usize): void {
  const result = alu<T>(kind, register<T>(dst(op)), cut<T>(load<u64>(op, OP_IMM)));
  if (!compares(kind)) setRegister<T>(dst(op), result);
}

// @ts-ignore: decorator
@inline
function aluRegisterMemory<T>(kind: u32, op: usize): void {
  const value = loadMemory<T>(effectiveAddress(op));
  if (fault) return;
  const result = alu<T>(kind, register<T>(dst(op)), value);
  if (!compares(kind)) setRegister<T>(dst(op), result);
}

// @ts-ignore: decorator
@inline
function aluMemory<T>(kind: u32, address: u64, second: u64): void {
  if (compares(kind)) {
    const value = loadMemory<T>(address);
    if (fault) return;
    alu<T>(kind, value, second);
  } else {
    const value = loadForUpdate<T>(address);
    if (fault) return;
    storeUpdated<T>(address, alu<T>(kind, value, second));
  }
}

// @ts-ignore: decorator
@inline
function aluMemoryRegister<T>(kind: u32, op: usize): void {
  aluMemory<T>(kind, effectiveAddress(op), register<T>(src(op)));
}

// @ts-ignore: decorator
@inline
function aluMemoryImmediate<T>(kind: u32, op: usize): void {
  aluMemory<T>(kind, effectiveAddress(op), cut<T>(load<u64>(op, OP_IMM)));
}

// @ts-ignore: decorator
@inline
function kindToRegister<T>(op: usize, second: u64): void {
  const kind = load<u8>(op, OP_KIND);
  const result = aluOfKind<T>(kind, register<T>(dst(op)), second);
  if (kind < ALU_CMP) setRegister<T>(dst(op), result);
}

function kindRegisterRegister<T>(op: usize): void {
  kindToRegister<T>(op, register<T>(src(op)));
}

function kindRegisterImmediate<T>(op: usize): void {
  kindToRegister<T>(op, cut<T>(load<u64>(op, OP_IMM)));
}

function kindRegisterMemory<T>(op: usize): void {
  const value = loadMemory<T>(effectiveAddress(op));
  if (fault) return;
  kindToRegister<T>(op, value);
}

// @ts-ignore: decorator
@inline
function kindMemory<T>(op: usize, second: u64): void {
  const kind = load<u8>(op, OP_KIND);
  const address = effectiveAddress(op);
  if (kind >= ALU_CMP) {
    const value = loadMemory<T>(address);
    if (fault) return;
    aluOfKind<T>(kind, value, second);
  } else {
    const value = loadForUpdate<T>(address);
    if (fault) return;
    storeUpdated<T>(address, aluOfKind<T>(kind, value, second));
  }
}

function kindMemoryRegister<T>(op: usize): void {
  kindMemory<T>(op, register<T>(src(op)));
}

function kindMemoryImmediate<T>(op: usize): void {
  kindMemory<T>(op, cut<T>(load<u64>(op, OP_IMM)));
}

// @ts-ignore: decorator
@inline
function movRegisterRegister<T>(op: usize): void {
  setRegister<T>(dst(op), register<T>(src(op)));
}

// @ts-ignore: decorator
@inline
function movRegisterImmediate<T>(op: usize): void {
  setRegister<T>(dst(op), cut<T>(load<u64>(op, OP_IMM)));
}

// @ts-ignore: decorator
@inline
function movRegisterMemory<T>(op: usize): void {
  const value = loadMemory<T>(effectiveAddress(op));
  if (fault) return;
  setRegister<T>(dst(op), value);
}

// @ts-ignore: decorator
@inline
function movMemoryRegister<T>(op: usize): void {
  storeMemory<T>(effectiveAddress(op), register<T>(src(op)));
}

// @ts-ignore: decorator
@inline
function movMemoryImmediate<T>(op: usize): void {
  storeMemory<T>(effectiveAddress(op), cut<T>(load<u64>(op, OP_IMM)));
}

/** MOVZX and MOVSX from memory: `S` is the source's type, signed for MOVSX. */
// @ts-ignore: decorator
@inline
function extendMemory<T, S>(op: usize): void {
  const value = loadMemory<S>(effectiveAddress(op));
  if (fault) return;
  if (isSigned<S>()) setRegister<T>(dst(op), cut<T>(u64(i64(<S>value))));
  else setRegister<T>(dst(op), value);
}

// @ts-ignore: decorator
@inline
function unaryRegister<T>(kind: u32, op: usize): void {
  setRegister<T>(dst(op), unary<T>(kind, register<T>(dst(op))));
}

// @ts-ignore: decorator
@inline
function shiftImmediate<T>(kind: u32, op: usize): void {
  setRegister<T>(dst(op), shift<T>(kind, register<T>(dst(op)), load<u32>(op, OP_IMM)));
}

// @ts-ignore: decorator
@inline
function multiplyMemory<T>(op: usize): void {
  const value = loadMemory<T>(effectiveAddress(op));
  if (fault) return;
  setRegister<T>(dst(op), multiply<T>(register<T>(dst(op)), value));
}

/** CMOVcc from memory: the operand is read whether or not the condition holds. */
// @ts-ignore: decorator
@inline
function conditionalMove<T>(op: usize): void {
  const value = loadMemory<T>(effectiveAddress(op));
  if (fault) return;
  setRegister<T>(dst(op), conditionHolds(load<u8>(op, OP_KIND)) ? value : register<T>(dst(op)));
}

/** Finds the operation at RIP and, where both ends lie in one page, keeps it as the link of `op`. */
function follow(op: usize, link: usize): usize {
  const generation = cacheGeneration;
  const next = fetch();
  if (next == 0 || link == OP_UNLINKED || generation != cacheGeneration) return next;
  const needed = link == OP_NEXT ? FLAG_NEXT_IN_PAGE : FLAG_TARGET_IN_PAGE;
  if (!(load<u16>(op, OP_FLAGS) & needed) || load<u16>(next, OP_FLAGS) & FLAG_UNLINKED) return next;
  store<u32>(op + link, <u32>next);
  return next;
}

/**
 * Runs up to `budget` (at least 1) instructions of the current VCPU.
 * @returns how many were retired: RIP is past them. Fewer than `budget` when `fault` is set (the instruction at RIP has
 *   committed nothing) or `attention` is (the last instruction wants the run loop to look around).
 */
export function execute(budget: i32): i32 {
  let op = fetch();
  if (op == 0) return 0;
  let left = budget;
  let rip = load<u64>(cpu, VCPU_RIP);
  while (true) {
    let link = OP_NEXT;
    const code: u32 = load<u16>(op, OP_CODE);
    switch (code) {
      case I_ADD_RR_32:
        aluRegisterRegister<u32>(ALU_ADD, op);
        break;
      case I_OR_RR_32:
        aluRegisterRegister<u32>(ALU_OR, op);
        break;
      case I_ADC_RR_32:
        aluRegisterRegister<u32>(ALU_ADC, op);
        break;
      case I_SBB_RR_32:
        aluRegisterRegister<u32>(ALU_SBB, op);
        break;
      case I_AND_RR_32:
        aluRegisterRegister<u32>(ALU_AND, op);
        break;
      case I_SUB_RR_32:
        aluRegisterRegister<u32>(ALU_SUB, op);
        break;
      case I_XOR_RR_32:
        aluRegisterRegister<u32>(ALU_XOR, op);
        break;
      case I_CMP_RR_32:
        aluRegisterRegister<u32>(ALU_CMP, op);
        break;
      case I_TEST_RR_32:
        aluRegisterRegister<u32>(ALU_TEST, op);
        break;
      case I_ADD_RI_32:
        aluRegisterImmediate<u32>(ALU_ADD, op);
        break;
      case I_OR_RI_32:
        aluRegisterImmediate<u32>(ALU_OR, op);
        break;
      case I_ADC_RI_32:
        aluRegisterImmediate<u32>(ALU_ADC, op);
        break;
      case I_SBB_RI_32:
        aluRegisterImmediate<u32>(ALU_SBB, op);
        break;
      case I_AND_RI_32:
        aluRegisterImmediate<u32>(ALU_AND, op);
        break;
      case I_SUB_RI_32:
        aluRegisterImmediate<u32>(ALU_SUB, op);
        break;
      case I_XOR_RI_32:
        aluRegisterImmediate<u32>(ALU_XOR, op);
        break;
      case I_CMP_RI_32:
        aluRegisterImmediate<u32>(ALU_CMP, op);
        break;
      case I_TEST_RI_32:
        aluRegisterImmediate<u32>(ALU_TEST, op);
        break;
      case I_ADD_RM_32:
        aluRegisterMemory<u32>(ALU_ADD, op);
        break;
      case I_OR_RM_32:
        aluRegisterMemory<u32>(ALU_OR, op);
        break;
      case I_ADC_RM_32:
        aluRegisterMemory<u32>(ALU_ADC, op);
        break;
      case I_SBB_RM_32:
        aluRegisterMemory<u32>(ALU_SBB, op);
        break;
      case I_AND_RM_32:
        aluRegisterMemory<u32>(ALU_AND, op);
        break;
      case I_SUB_RM_32:
        aluRegisterMemory<u32>(ALU_SUB, op);
        break;
      case I_XOR_RM_32:
        aluRegisterMemory<u32>(ALU_XOR, op);
        break;
      case I_CMP_RM_32:
        aluRegisterMemory<u32>(ALU_CMP, op);
        break;
      case I_TEST_RM_32:
        aluRegisterMemory<u32>(ALU_TEST, op);
        break;
      case I_ADD_MR_32:
        aluMemoryRegister<u32>(ALU_ADD, op);
        break;
      case I_OR_MR_32:
        aluMemoryRegister<u32>(ALU_OR, op);
        break;
      case I_ADC_MR_32:
        aluMemoryRegister<u32>(ALU_ADC, op);
        break;
      case I_SBB_MR_32:
        aluMemoryRegister<u32>(ALU_SBB, op);
        break;
      case I_AND_MR_32:
        aluMemoryRegister<u32>(ALU_AND, op);
        break;
      case I_SUB_MR_32:
        aluMemoryRegister<u32>(ALU_SUB, op);
        break;
      case I_XOR_MR_32:
        aluMemoryRegister<u32>(ALU_XOR, op);
        break;
      case I_CMP_MR_32:
        aluMemoryRegister<u32>(ALU_CMP, op);
        break;
      case I_TEST_MR_32:
        aluMemoryRegister<u32>(ALU_TEST, op);
        break;
      case I_ADD_MI_32:
        aluMemoryImmediate<u32>(ALU_ADD, op);
        break;
      case I_OR_MI_32:
        aluMemoryImmediate<u32>(ALU_OR, op);
        break;
      case I_ADC_MI_32:
        aluMemoryImmediate<u32>(ALU_ADC, op);
        break;
      case I_SBB_MI_32:
        aluMemoryImmediate<u32>(ALU_SBB, op);
        break;
      case I_AND_MI_32:
        aluMemoryImmediate<u32>(ALU_AND, op);
        break;
      case I_SUB_MI_32:
        aluMemoryImmediate<u32>(ALU_SUB, op);
        break;
      case I_XOR_MI_32:
        aluMemoryImmediate<u32>(ALU_XOR, op);
        break;
      case I_CMP_MI_32:
        aluMemoryImmediate<u32>(ALU_CMP, op);
        break;
      case I_TEST_MI_32:
        aluMemoryImmediate<u32>(ALU_TEST, op);
        break;
      case I_ADD_RR_64:
        aluRegisterRegister<u64>(ALU_ADD, op);
        break;
      case I_OR_RR_64:
        aluRegisterRegister<u64>(ALU_OR, op);
        break;
      case I_ADC_RR_64:
        aluRegisterRegister<u64>(ALU_ADC, op);
        break;
      case I_SBB_RR_64:
        aluRegisterRegister<u64>(ALU_SBB, op);
        break;
      case I_AND_RR_64:
        aluRegisterRegister<u64>(ALU_AND, op);
        break;
      case I_SUB_RR_64:
        aluRegisterRegister<u64>(ALU_SUB, op);
        break;
      case I_XOR_RR_64:
        aluRegisterRegister<u64>(ALU_XOR, op);
        break;
      case I_CMP_RR_64:
        aluRegisterRegister<u64>(ALU_CMP, op);
        break;
      case I_TEST_RR_64:
        aluRegisterRegister<u64>(ALU_TEST, op);
        break;
      case I_ADD_RI_64:
        aluRegisterImmediate<u64>(ALU_ADD, op);
        break;
      case I_OR_RI_64:
        aluRegisterImmediate<u64>(ALU_OR, op);
        break;
      case I_ADC_RI_64:
        aluRegisterImmediate<u64>(ALU_ADC, op);
        break;
      case I_SBB_RI_64:
        aluRegisterImmediate<u64>(ALU_SBB, op);
        break;
      case I_AND_RI_64:
        aluRegisterImmediate<u64>(ALU_AND, op);
        break;
      case I_SUB_RI_64:
        aluRegisterImmediate<u64>(ALU_SUB, op);
        break;
      case I_XOR_RI_64:
        aluRegisterImmediate<u64>(ALU_XOR, op);
        break;
      case I_CMP_RI_64:
        aluRegisterImmediate<u64>(ALU_CMP, op);
        break;
      case I_TEST_RI_64:
        aluRegisterImmediate<u64>(ALU_TEST, op);
        break;
      case I_ADD_RM_64:
        aluRegisterMemory<u64>(ALU_ADD, op);
        break;
      case I_OR_RM_64:
        aluRegisterMemory<u64>(ALU_OR, op);
        break;
      case I_ADC_RM_64:
        aluRegisterMemory<u64>(ALU_ADC, op);
        break;
      case I_SBB_RM_64:
        aluRegisterMemory<u64>(ALU_SBB, op);
        break;
      case I_AND_RM_64:
        aluRegisterMemory<u64>(ALU_AND, op);
        break;
      case I_SUB_RM_64:
        aluRegisterMemory<u64>(ALU_SUB, op);
        break;
      case I_XOR_RM_64:
        aluRegisterMemory<u64>(ALU_XOR, op);
        break;
      case I_CMP_RM_64:
        aluRegisterMemory<u64>(ALU_CMP, op);
        break;
      case I_TEST_RM_64:
        aluRegisterMemory<u64>(ALU_TEST, op);
        break;
      case I_ADD_MR_64:
        aluMemoryRegister<u64>(ALU_ADD, op);
        break;
      case I_OR_MR_64:
        aluMemoryRegister<u64>(ALU_OR, op);
        break;
      case I_ADC_MR_64:
        aluMemoryRegister<u64>(ALU_ADC, op);
        break;
      case I_SBB_MR_64:
        aluMemoryRegister<u64>(ALU_SBB, op);
        break;
      case I_AND_MR_64:
        aluMemoryRegister<u64>(ALU_AND, op);
        break;
      case I_SUB_MR_64:
        aluMemoryRegister<u64>(ALU_SUB, op);
        break;
      case I_XOR_MR_64:
        aluMemoryRegister<u64>(ALU_XOR, op);
        break;
      case I_CMP_MR_64:
        aluMemoryRegister<u64>(ALU_CMP, op);
        break;
      case I_TEST_MR_64:
        aluMemoryRegister<u64>(ALU_TEST, op);
        break;
      case I_ADD_MI_64:
        aluMemoryImmediate<u64>(ALU_ADD, op);
        break;
      case I_OR_MI_64:
        aluMemoryImmediate<u64>(ALU_OR, op);
        break;
      case I_ADC_MI_64:
        aluMemoryImmediate<u64>(ALU_ADC, op);
        break;
      case I_SBB_MI_64:
        aluMemoryImmediate<u64>(ALU_SBB, op);
        break;
      case I_AND_MI_64:
        aluMemoryImmediate<u64>(ALU_AND, op);
        break;
      case I_SUB_MI_64:
        aluMemoryImmediate<u64>(ALU_SUB, op);
        break;
      case I_XOR_MI_64:
        aluMemoryImmediate<u64>(ALU_XOR, op);
        break;
      case I_CMP_MI_64:
        aluMemoryImmediate<u64>(ALU_CMP, op);
        break;
      case I_TEST_MI_64:
        aluMemoryImmediate<u64>(ALU_TEST, op);
        break;
      case I_ALU_RR_8:
        kindRegisterRegister<u8>(op);
        break;
      case I_ALU_RI_8:
        kindRegisterImmediate<u8>(op);
        break;
      case I_ALU_RM_8:
        kindRegisterMemory<u8>(op);
        break;
      case I_ALU_MR_8:
        kindMemoryRegister<u8>(op);
        break;
      case I_ALU_MI_8:
        kindMemoryImmediate<u8>(op);
        break;
      case I_ALU_RR_16:
        kindRegisterRegister<u16>(op);
        break;
      case I_ALU_RI_16:
        kindRegisterImmediate<u16>(op);
        break;
      case I_ALU_RM_16:
        kindRegisterMemory<u16>(op);
        break;
      case I_ALU_MR_16:
        kindMemoryRegister<u16>(op);
        break;
      case I_ALU_MI_16:
        kindMemoryImmediate<u16>(op);
        break;
      case I_MOV_RR_8:
        movRegisterRegister<u8>(op);
        break;
      case I_MOV_RI_8:
        movRegisterImmediate<u8>(op);
        break;
      case I_MOV_RM_8:
        movRegisterMemory<u8>(op);
        break;
      case I_MOV_MR_8:
        movMemoryRegister<u8>(op);
        break;
      case I_MOV_MI_8:
        movMemoryImmediate<u8>(op);
        break;
      case I_MOV_RR_16:
        movRegisterRegister<u16>(op);
        break;
      case I_MOV_RI_16:
        movRegisterImmediate<u16>(op);
        break;
      case I_MOV_RM_16:
        movRegisterMemory<u16>(op);
        break;
      case I_MOV_MR_16:
        movMemoryRegister<u16>(op);
        break;
      case I_MOV_MI_16:
        movMemoryImmediate<u16>(op);
        break;
      case I_MOV_RR_32:
        movRegisterRegister<u32>(op);
        break;
      case I_MOV_RI_32:
        movRegisterImmediate<u32>(op);
        break;
      case I_MOV_RM_32:
        movRegisterMemory<u32>(op);
        break;
      case I_MOV_MR_32:
        movMemoryRegister<u32>(op);
        break;
      case I_MOV_MI_32:
        movMemoryImmediate<u32>(op);
        break;
      case I_MOV_RR_64:
        movRegisterRegister<u64>(op);
        break;
      case I_MOV_RI_64:
        movRegisterImmediate<u64>(op);
        break;
      case I_MOV_RM_64:
        movRegisterMemory<u64>(op);
        break;
      case I_MOV_MR_64:
        movMemoryRegister<u64>(op);
        break;
      case I_MOV_MI_64:
        movMemoryImmediate<u64>(op);
        break;
      case I_MOVZX_32_R8:
        setRegister<u32>(dst(op), register<u8>(src(op)));
        break;
      case I_MOVZX_32_M8:
        extendMemory<u32, u8>(op);
        break;
      case I_MOVZX_32_R16:
        setRegister<u32>(dst(op), register<u16>(src(op)));
        break;
      case I_MOVZX_32_M16:
        extendMemory<u32, u16>(op);
        break;
      case I_MOVSX_32_R8:
        setRegister<u32>(dst(op), cut<u32>(u64(<i64><i8>register<u8>(src(op)))));
        break;
      case I_MOVSX_32_M8:
        extendMemory<u32, i8>(op);
        break;
      case I_MOVSX_32_R16:
        setRegister<u32>(dst(op), cut<u32>(u64(<i64><i16>register<u16>(src(op)))));
        break;
      case I_MOVSX_32_M16:
        extendMemory<u32, i16>(op);
        break;
      case I_MOVSX_64_R8:
        setRegister<u64>(dst(op), cut<u64>(u64(<i64><i8>register<u8>(src(op)))));
        break;
      case I_MOVSX_64_M8:
        extendMemory<u64, i8>(op);
        break;
      case I_MOVSX_64_R16:
        setRegister<u64>(dst(op), cut<u64>(u64(<i64><i16>register<u16>(src(op)))));
        break;
      case I_MOVSX_64_M16:
        extendMemory<u64, i16>(op);
        break;
      case I_MOVSX_64_R32:
        setRegister<u64>(dst(op), cut<u64>(u64(<i64><i32>register<u32>(src(op)))));
        break;
      case I_MOVSX_64_M32:
        extendMemory<u64, i32>(op);
        break;
      case I_LEA_32:
        setRegister<u32>(dst(op), effectiveOffset(op) & 0xffff_ffff);
        break;
      case I_LEA_64:
        setRegister<u64>(dst(op), effectiveOffset(op));
        break;
      case I_INC_R_32:
        unaryRegister<u32>(UNARY_INC, op);
        break;
      case I_DEC_R_32:
        unaryRegister<u32>(UNARY_DEC, op);
        break;
      case I_NEG_R_32:
        unaryRegister<u32>(UNARY_NEG, op);
        break;
      case I_NOT_R_32:
        unaryRegister<u32>(UNARY_NOT, op);
        break;
      case I_INC_R_64:
        unaryRegister<u64>(UNARY_INC, op);
        break;
      case I_DEC_R_64:
        unaryRegister<u64>(UNARY_DEC, op);
        break;
      case I_NEG_R_64:
        unaryRegister<u64>(UNARY_NEG, op);
        break;
      case I_NOT_R_64:
        unaryRegister<u64>(UNARY_NOT, op);
        break;
      case I_SHL_RI_32:
        shiftImmediate<u32>(SHIFT_SHL, op);
        break;
      case I_SHR_RI_32:
        shiftImmediate<u32>(SHIFT_SHR, op);
        break;
      case I_SAR_RI_32:
        shiftImmediate<u32>(SHIFT_SAR, op);
        break;
      case I_SHL_RI_64:
        shiftImmediate<u64>(SHIFT_SHL, op);
        break;
      case I_SHR_RI_64:
        shiftImmediate<u64>(SHIFT_SHR, op);
        break;
      case I_SAR_RI_64:
        shiftImmediate<u64>(SHIFT_SAR, op);
        break;
      case I_IMUL_RR_32:
        setRegister<u32>(dst(op), multiply<u32>(register<u32>(dst(op)), register<u32>(src(op))));
        break;
      case I_IMUL_RM_32:
        multiplyMemory<u32>(op);
        break;
      case I_IMUL_RR_64:
        setRegister<u64>(dst(op), multiply<u64>(register<u64>(dst(op)), register<u64>(src(op))));
        break;
      case I_IMUL_RM_64:
        multiplyMemory<u64>(op);
        break;
      case I_JO:
        if (condition(CONDITION_O, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JNO:
        if (condition(CONDITION_NO, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JB:
        if (condition(CONDITION_B, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JAE:
        if (condition(CONDITION_AE, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JE:
        if (condition(CONDITION_E, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JNE:
        if (condition(CONDITION_NE, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JBE:
        if (condition(CONDITION_BE, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JA:
        if (condition(CONDITION_A, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JS:
        if (condition(CONDITION_S, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JNS:
        if (condition(CONDITION_NS, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JP:
        if (condition(CONDITION_P, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JNP:
        if (condition(CONDITION_NP, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JL:
        if (condition(CONDITION_L, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JGE:
        if (condition(CONDITION_GE, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JLE:
        if (condition(CONDITION_LE, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JG:
        if (condition(CONDITION_G, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case I_JMP:
        rip += load<u64>(op, OP_IMM);
        link = OP_TAKEN;
        break;
      case I_JMP_R:
        rip = jumpTarget(op, register<u64>(src(op)), rip);
        link = OP_UNLINKED;
        break;
      case I_JMP_M:
        rip = jumpTarget(op, load64(effectiveAddress(op)), rip);
        link = OP_UNLINKED;
        break;
      case I_CALL:
        push64(rip + u64(length(op)));
        if (fault) break;
        rip += load<u64>(op, OP_IMM);
        link = OP_TAKEN;
        break;
      case I_CALL_R:
        rip = call(op, register<u64>(src(op)), rip);
        link = OP_UNLINKED;
        break;
      case I_CALL_M:
        rip = call(op, load64(effectiveAddress(op)), rip);
        link = OP_UNLINKED;
        break;
      case I_RET:
        rip = ret(op, 0, rip);
        link = OP_UNLINKED;
        break;
      case I_RET_I:
        rip = ret(op, load<u64>(op, OP_IMM), rip);
        link = OP_UNLINKED;
        break;
      case I_PUSH_R:
        push64(register<u64>(src(op)));
        break;
      case I_PUSH_I:
        push64(load<u64>(op, OP_IMM));
        break;
      case I_PUSH_M:
        pushMemory(op);
        break;
      case I_POP_R:
        popRegister(op);
        break;
      case I_LEAVE:
        leave();
        break;
      case I_SETCC_R:
        setRegister<u8>(dst(op), u64(conditionHolds(load<u8>(op, OP_KIND))));
        break;
      case I_SETCC_M:
        store8(effectiveAddress(op), u64(conditionHolds(load<u8>(op, OP_KIND))));
        break;
      case I_CMOV_32_R:
        setRegister<u32>(
          dst(op),
          conditionHolds(load<u8>(op, OP_KIND)) ? register<u32>(src(op)) : register<u32>(dst(op)),
        );
        break;
      case I_CMOV_64_R:
        if (conditionHolds(load<u8>(op, OP_KIND))) setRegister<u64>(dst(op), register<u64>(src(op)));
        break;
      case I_CMOV_32_M:
        conditionalMove<u32>(op);
        break;
      case I_CMOV_64_M:
        conditionalMove<u64>(op);
        break;
      case I_NOP:
        break;
      default:
        if (code < I_SYSTEM_BASE) {
          execGeneric(op, code);
        } else {
          setRemaining(left);
          execSystem(op);
          // It may have changed how addresses are translated: the next instruction is looked up anew.
          link = OP_UNLINKED;
        }
        if (ripSet) {
          setRipSet(false);
          if (fault == 0) {
            rip = load<u64>(cpu, VCPU_RIP) - u64(length(op));
            link = OP_UNLINKED;
          }
        }
    }
    if (fault) {
      // #GP, or #SS through SS (SDM vol. 1, 3.3.7.1).
      if (fault == FAULT_NON_CANONICAL) raise(load<u16>(op, OP_FLAGS) & FLAG_STACK ? 12 : 13, 1, 0);
      break;
    }
    rip += u64(length(op));
    store<u64>(cpu, rip, VCPU_RIP);
    left--;
    if (left == 0 || attention) break;
    let next: usize = load<u32>(op + link);
    if (next == 0) {
      next = follow(op, link);
      if (next == 0) break;
    }
    op = next;
  }
  return budget - left;
}
