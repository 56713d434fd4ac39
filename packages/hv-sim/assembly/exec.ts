// The executor's loop: fetches decoded operations, follows the links between them, and does the common ones itself,
// one case for each form and size. The others are in exec-generic.ts; what belongs to the machine is in system.ts.
//
// An operation first makes all memory accesses that may fail, and then commits. `fault` is looked at after each access.

import { condition, conditionHolds, cut } from './alu';
import { execGeneric } from './exec-generic';
import { attention, FAULT_NON_CANONICAL, fault, raise } from './fault';
import * as layout from './generated/layout';
import {
  CODE_FLAT_32,
  FLAG_NEXT_IN_PAGE,
  FLAG_STACK,
  FLAG_TARGET_IN_PAGE,
  FLAG_UNLINKED,
  I_SYSTEM_BASE,
  OP_CODE,
  OP_FLAGS,
  OP_IMM,
  OP_KIND,
  OP_NEXT,
  OP_TAKEN,
  OP_UNLINKED,
  VCPU_RIP,
} from './generated/layout';
import { cacheGeneration, fetch, load64, store8 } from './memory';
import { codeMode, wrapRip } from './mode';
import { multiply } from './multiply';
import { effectiveAddress, effectiveOffset } from './operand';
import {
  aluMemoryImmediate,
  aluMemoryRegister,
  aluRegisterImmediate,
  aluRegisterMemory,
  aluRegisterRegister,
  conditionalMove,
  dst,
  extendMemory,
  kindMemoryImmediate,
  kindMemoryRegister,
  kindRegisterImmediate,
  kindRegisterMemory,
  kindRegisterRegister,
  length,
  movMemoryImmediate,
  movMemoryRegister,
  movRegisterImmediate,
  movRegisterMemory,
  movRegisterRegister,
  multiplyMemory,
  shiftImmediate,
  src,
  unaryRegister,
} from './operand-forms';
import { call, jumpTarget, leave, popRegister, push64, pushMemory, ret } from './stack';
import { cpu, flags, register, ripSet, setRegister, setRemaining, setRipSet } from './state';
import { execSystem } from './system';

/** Finds the operation at RIP and, where both ends lie in one page, keeps it as the link of `op`. */
function follow(op: usize, link: usize): usize {
  const generation = cacheGeneration;
  const next = fetch();
  if (next == 0 || link == OP_UNLINKED || generation != cacheGeneration || codeMode > CODE_FLAT_32) return next;
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
      case layout.I_ADD_RR_32:
        aluRegisterRegister<u32>(layout.ALU_ADD, op);
        break;
      case layout.I_OR_RR_32:
        aluRegisterRegister<u32>(layout.ALU_OR, op);
        break;
      case layout.I_ADC_RR_32:
        aluRegisterRegister<u32>(layout.ALU_ADC, op);
        break;
      case layout.I_SBB_RR_32:
        aluRegisterRegister<u32>(layout.ALU_SBB, op);
        break;
      case layout.I_AND_RR_32:
        aluRegisterRegister<u32>(layout.ALU_AND, op);
        break;
      case layout.I_SUB_RR_32:
        aluRegisterRegister<u32>(layout.ALU_SUB, op);
        break;
      case layout.I_XOR_RR_32:
        aluRegisterRegister<u32>(layout.ALU_XOR, op);
        break;
      case layout.I_CMP_RR_32:
        aluRegisterRegister<u32>(layout.ALU_CMP, op);
        break;
      case layout.I_TEST_RR_32:
        aluRegisterRegister<u32>(layout.ALU_TEST, op);
        break;
      case layout.I_ADD_RI_32:
        aluRegisterImmediate<u32>(layout.ALU_ADD, op);
        break;
      case layout.I_OR_RI_32:
        aluRegisterImmediate<u32>(layout.ALU_OR, op);
        break;
      case layout.I_ADC_RI_32:
        aluRegisterImmediate<u32>(layout.ALU_ADC, op);
        break;
      case layout.I_SBB_RI_32:
        aluRegisterImmediate<u32>(layout.ALU_SBB, op);
        break;
      case layout.I_AND_RI_32:
        aluRegisterImmediate<u32>(layout.ALU_AND, op);
        break;
      case layout.I_SUB_RI_32:
        aluRegisterImmediate<u32>(layout.ALU_SUB, op);
        break;
      case layout.I_XOR_RI_32:
        aluRegisterImmediate<u32>(layout.ALU_XOR, op);
        break;
      case layout.I_CMP_RI_32:
        aluRegisterImmediate<u32>(layout.ALU_CMP, op);
        break;
      case layout.I_TEST_RI_32:
        aluRegisterImmediate<u32>(layout.ALU_TEST, op);
        break;
      case layout.I_ADD_RM_32:
        aluRegisterMemory<u32>(layout.ALU_ADD, op);
        break;
      case layout.I_OR_RM_32:
        aluRegisterMemory<u32>(layout.ALU_OR, op);
        break;
      case layout.I_ADC_RM_32:
        aluRegisterMemory<u32>(layout.ALU_ADC, op);
        break;
      case layout.I_SBB_RM_32:
        aluRegisterMemory<u32>(layout.ALU_SBB, op);
        break;
      case layout.I_AND_RM_32:
        aluRegisterMemory<u32>(layout.ALU_AND, op);
        break;
      case layout.I_SUB_RM_32:
        aluRegisterMemory<u32>(layout.ALU_SUB, op);
        break;
      case layout.I_XOR_RM_32:
        aluRegisterMemory<u32>(layout.ALU_XOR, op);
        break;
      case layout.I_CMP_RM_32:
        aluRegisterMemory<u32>(layout.ALU_CMP, op);
        break;
      case layout.I_TEST_RM_32:
        aluRegisterMemory<u32>(layout.ALU_TEST, op);
        break;
      case layout.I_ADD_MR_32:
        aluMemoryRegister<u32>(layout.ALU_ADD, op);
        break;
      case layout.I_OR_MR_32:
        aluMemoryRegister<u32>(layout.ALU_OR, op);
        break;
      case layout.I_ADC_MR_32:
        aluMemoryRegister<u32>(layout.ALU_ADC, op);
        break;
      case layout.I_SBB_MR_32:
        aluMemoryRegister<u32>(layout.ALU_SBB, op);
        break;
      case layout.I_AND_MR_32:
        aluMemoryRegister<u32>(layout.ALU_AND, op);
        break;
      case layout.I_SUB_MR_32:
        aluMemoryRegister<u32>(layout.ALU_SUB, op);
        break;
      case layout.I_XOR_MR_32:
        aluMemoryRegister<u32>(layout.ALU_XOR, op);
        break;
      case layout.I_CMP_MR_32:
        aluMemoryRegister<u32>(layout.ALU_CMP, op);
        break;
      case layout.I_TEST_MR_32:
        aluMemoryRegister<u32>(layout.ALU_TEST, op);
        break;
      case layout.I_ADD_MI_32:
        aluMemoryImmediate<u32>(layout.ALU_ADD, op);
        break;
      case layout.I_OR_MI_32:
        aluMemoryImmediate<u32>(layout.ALU_OR, op);
        break;
      case layout.I_ADC_MI_32:
        aluMemoryImmediate<u32>(layout.ALU_ADC, op);
        break;
      case layout.I_SBB_MI_32:
        aluMemoryImmediate<u32>(layout.ALU_SBB, op);
        break;
      case layout.I_AND_MI_32:
        aluMemoryImmediate<u32>(layout.ALU_AND, op);
        break;
      case layout.I_SUB_MI_32:
        aluMemoryImmediate<u32>(layout.ALU_SUB, op);
        break;
      case layout.I_XOR_MI_32:
        aluMemoryImmediate<u32>(layout.ALU_XOR, op);
        break;
      case layout.I_CMP_MI_32:
        aluMemoryImmediate<u32>(layout.ALU_CMP, op);
        break;
      case layout.I_TEST_MI_32:
        aluMemoryImmediate<u32>(layout.ALU_TEST, op);
        break;
      case layout.I_ADD_RR_64:
        aluRegisterRegister<u64>(layout.ALU_ADD, op);
        break;
      case layout.I_OR_RR_64:
        aluRegisterRegister<u64>(layout.ALU_OR, op);
        break;
      case layout.I_ADC_RR_64:
        aluRegisterRegister<u64>(layout.ALU_ADC, op);
        break;
      case layout.I_SBB_RR_64:
        aluRegisterRegister<u64>(layout.ALU_SBB, op);
        break;
      case layout.I_AND_RR_64:
        aluRegisterRegister<u64>(layout.ALU_AND, op);
        break;
      case layout.I_SUB_RR_64:
        aluRegisterRegister<u64>(layout.ALU_SUB, op);
        break;
      case layout.I_XOR_RR_64:
        aluRegisterRegister<u64>(layout.ALU_XOR, op);
        break;
      case layout.I_CMP_RR_64:
        aluRegisterRegister<u64>(layout.ALU_CMP, op);
        break;
      case layout.I_TEST_RR_64:
        aluRegisterRegister<u64>(layout.ALU_TEST, op);
        break;
      case layout.I_ADD_RI_64:
        aluRegisterImmediate<u64>(layout.ALU_ADD, op);
        break;
      case layout.I_OR_RI_64:
        aluRegisterImmediate<u64>(layout.ALU_OR, op);
        break;
      case layout.I_ADC_RI_64:
        aluRegisterImmediate<u64>(layout.ALU_ADC, op);
        break;
      case layout.I_SBB_RI_64:
        aluRegisterImmediate<u64>(layout.ALU_SBB, op);
        break;
      case layout.I_AND_RI_64:
        aluRegisterImmediate<u64>(layout.ALU_AND, op);
        break;
      case layout.I_SUB_RI_64:
        aluRegisterImmediate<u64>(layout.ALU_SUB, op);
        break;
      case layout.I_XOR_RI_64:
        aluRegisterImmediate<u64>(layout.ALU_XOR, op);
        break;
      case layout.I_CMP_RI_64:
        aluRegisterImmediate<u64>(layout.ALU_CMP, op);
        break;
      case layout.I_TEST_RI_64:
        aluRegisterImmediate<u64>(layout.ALU_TEST, op);
        break;
      case layout.I_ADD_RM_64:
        aluRegisterMemory<u64>(layout.ALU_ADD, op);
        break;
      case layout.I_OR_RM_64:
        aluRegisterMemory<u64>(layout.ALU_OR, op);
        break;
      case layout.I_ADC_RM_64:
        aluRegisterMemory<u64>(layout.ALU_ADC, op);
        break;
      case layout.I_SBB_RM_64:
        aluRegisterMemory<u64>(layout.ALU_SBB, op);
        break;
      case layout.I_AND_RM_64:
        aluRegisterMemory<u64>(layout.ALU_AND, op);
        break;
      case layout.I_SUB_RM_64:
        aluRegisterMemory<u64>(layout.ALU_SUB, op);
        break;
      case layout.I_XOR_RM_64:
        aluRegisterMemory<u64>(layout.ALU_XOR, op);
        break;
      case layout.I_CMP_RM_64:
        aluRegisterMemory<u64>(layout.ALU_CMP, op);
        break;
      case layout.I_TEST_RM_64:
        aluRegisterMemory<u64>(layout.ALU_TEST, op);
        break;
      case layout.I_ADD_MR_64:
        aluMemoryRegister<u64>(layout.ALU_ADD, op);
        break;
      case layout.I_OR_MR_64:
        aluMemoryRegister<u64>(layout.ALU_OR, op);
        break;
      case layout.I_ADC_MR_64:
        aluMemoryRegister<u64>(layout.ALU_ADC, op);
        break;
      case layout.I_SBB_MR_64:
        aluMemoryRegister<u64>(layout.ALU_SBB, op);
        break;
      case layout.I_AND_MR_64:
        aluMemoryRegister<u64>(layout.ALU_AND, op);
        break;
      case layout.I_SUB_MR_64:
        aluMemoryRegister<u64>(layout.ALU_SUB, op);
        break;
      case layout.I_XOR_MR_64:
        aluMemoryRegister<u64>(layout.ALU_XOR, op);
        break;
      case layout.I_CMP_MR_64:
        aluMemoryRegister<u64>(layout.ALU_CMP, op);
        break;
      case layout.I_TEST_MR_64:
        aluMemoryRegister<u64>(layout.ALU_TEST, op);
        break;
      case layout.I_ADD_MI_64:
        aluMemoryImmediate<u64>(layout.ALU_ADD, op);
        break;
      case layout.I_OR_MI_64:
        aluMemoryImmediate<u64>(layout.ALU_OR, op);
        break;
      case layout.I_ADC_MI_64:
        aluMemoryImmediate<u64>(layout.ALU_ADC, op);
        break;
      case layout.I_SBB_MI_64:
        aluMemoryImmediate<u64>(layout.ALU_SBB, op);
        break;
      case layout.I_AND_MI_64:
        aluMemoryImmediate<u64>(layout.ALU_AND, op);
        break;
      case layout.I_SUB_MI_64:
        aluMemoryImmediate<u64>(layout.ALU_SUB, op);
        break;
      case layout.I_XOR_MI_64:
        aluMemoryImmediate<u64>(layout.ALU_XOR, op);
        break;
      case layout.I_CMP_MI_64:
        aluMemoryImmediate<u64>(layout.ALU_CMP, op);
        break;
      case layout.I_TEST_MI_64:
        aluMemoryImmediate<u64>(layout.ALU_TEST, op);
        break;
      case layout.I_ALU_RR_8:
        kindRegisterRegister<u8>(op);
        break;
      case layout.I_ALU_RI_8:
        kindRegisterImmediate<u8>(op);
        break;
      case layout.I_ALU_RM_8:
        kindRegisterMemory<u8>(op);
        break;
      case layout.I_ALU_MR_8:
        kindMemoryRegister<u8>(op);
        break;
      case layout.I_ALU_MI_8:
        kindMemoryImmediate<u8>(op);
        break;
      case layout.I_ALU_RR_16:
        kindRegisterRegister<u16>(op);
        break;
      case layout.I_ALU_RI_16:
        kindRegisterImmediate<u16>(op);
        break;
      case layout.I_ALU_RM_16:
        kindRegisterMemory<u16>(op);
        break;
      case layout.I_ALU_MR_16:
        kindMemoryRegister<u16>(op);
        break;
      case layout.I_ALU_MI_16:
        kindMemoryImmediate<u16>(op);
        break;
      case layout.I_MOV_RR_8:
        movRegisterRegister<u8>(op);
        break;
      case layout.I_MOV_RI_8:
        movRegisterImmediate<u8>(op);
        break;
      case layout.I_MOV_RM_8:
        movRegisterMemory<u8>(op);
        break;
      case layout.I_MOV_MR_8:
        movMemoryRegister<u8>(op);
        break;
      case layout.I_MOV_MI_8:
        movMemoryImmediate<u8>(op);
        break;
      case layout.I_MOV_RR_16:
        movRegisterRegister<u16>(op);
        break;
      case layout.I_MOV_RI_16:
        movRegisterImmediate<u16>(op);
        break;
      case layout.I_MOV_RM_16:
        movRegisterMemory<u16>(op);
        break;
      case layout.I_MOV_MR_16:
        movMemoryRegister<u16>(op);
        break;
      case layout.I_MOV_MI_16:
        movMemoryImmediate<u16>(op);
        break;
      case layout.I_MOV_RR_32:
        movRegisterRegister<u32>(op);
        break;
      case layout.I_MOV_RI_32:
        movRegisterImmediate<u32>(op);
        break;
      case layout.I_MOV_RM_32:
        movRegisterMemory<u32>(op);
        break;
      case layout.I_MOV_MR_32:
        movMemoryRegister<u32>(op);
        break;
      case layout.I_MOV_MI_32:
        movMemoryImmediate<u32>(op);
        break;
      case layout.I_MOV_RR_64:
        movRegisterRegister<u64>(op);
        break;
      case layout.I_MOV_RI_64:
        movRegisterImmediate<u64>(op);
        break;
      case layout.I_MOV_RM_64:
        movRegisterMemory<u64>(op);
        break;
      case layout.I_MOV_MR_64:
        movMemoryRegister<u64>(op);
        break;
      case layout.I_MOV_MI_64:
        movMemoryImmediate<u64>(op);
        break;
      case layout.I_MOVZX_32_R8:
        setRegister<u32>(dst(op), register<u8>(src(op)));
        break;
      case layout.I_MOVZX_32_M8:
        extendMemory<u32, u8>(op);
        break;
      case layout.I_MOVZX_32_R16:
        setRegister<u32>(dst(op), register<u16>(src(op)));
        break;
      case layout.I_MOVZX_32_M16:
        extendMemory<u32, u16>(op);
        break;
      case layout.I_MOVSX_32_R8:
        setRegister<u32>(dst(op), cut<u32>(u64(<i64>(<i8>register<u8>(src(op))))));
        break;
      case layout.I_MOVSX_32_M8:
        extendMemory<u32, i8>(op);
        break;
      case layout.I_MOVSX_32_R16:
        setRegister<u32>(dst(op), cut<u32>(u64(<i64>(<i16>register<u16>(src(op))))));
        break;
      case layout.I_MOVSX_32_M16:
        extendMemory<u32, i16>(op);
        break;
      case layout.I_MOVSX_64_R8:
        setRegister<u64>(dst(op), cut<u64>(u64(<i64>(<i8>register<u8>(src(op))))));
        break;
      case layout.I_MOVSX_64_M8:
        extendMemory<u64, i8>(op);
        break;
      case layout.I_MOVSX_64_R16:
        setRegister<u64>(dst(op), cut<u64>(u64(<i64>(<i16>register<u16>(src(op))))));
        break;
      case layout.I_MOVSX_64_M16:
        extendMemory<u64, i16>(op);
        break;
      case layout.I_MOVSX_64_R32:
        setRegister<u64>(dst(op), cut<u64>(u64(<i64>(<i32>register<u32>(src(op))))));
        break;
      case layout.I_MOVSX_64_M32:
        extendMemory<u64, i32>(op);
        break;
      case layout.I_LEA_32:
        setRegister<u32>(dst(op), effectiveOffset(op) & 0xffff_ffff);
        break;
      case layout.I_LEA_64:
        setRegister<u64>(dst(op), effectiveOffset(op));
        break;
      case layout.I_INC_R_32:
        unaryRegister<u32>(layout.UNARY_INC, op);
        break;
      case layout.I_DEC_R_32:
        unaryRegister<u32>(layout.UNARY_DEC, op);
        break;
      case layout.I_NEG_R_32:
        unaryRegister<u32>(layout.UNARY_NEG, op);
        break;
      case layout.I_NOT_R_32:
        unaryRegister<u32>(layout.UNARY_NOT, op);
        break;
      case layout.I_INC_R_64:
        unaryRegister<u64>(layout.UNARY_INC, op);
        break;
      case layout.I_DEC_R_64:
        unaryRegister<u64>(layout.UNARY_DEC, op);
        break;
      case layout.I_NEG_R_64:
        unaryRegister<u64>(layout.UNARY_NEG, op);
        break;
      case layout.I_NOT_R_64:
        unaryRegister<u64>(layout.UNARY_NOT, op);
        break;
      case layout.I_SHL_RI_32:
        shiftImmediate<u32>(layout.SHIFT_SHL, op);
        break;
      case layout.I_SHR_RI_32:
        shiftImmediate<u32>(layout.SHIFT_SHR, op);
        break;
      case layout.I_SAR_RI_32:
        shiftImmediate<u32>(layout.SHIFT_SAR, op);
        break;
      case layout.I_SHL_RI_64:
        shiftImmediate<u64>(layout.SHIFT_SHL, op);
        break;
      case layout.I_SHR_RI_64:
        shiftImmediate<u64>(layout.SHIFT_SHR, op);
        break;
      case layout.I_SAR_RI_64:
        shiftImmediate<u64>(layout.SHIFT_SAR, op);
        break;
      case layout.I_IMUL_RR_32:
        setRegister<u32>(dst(op), multiply<u32>(register<u32>(dst(op)), register<u32>(src(op))));
        break;
      case layout.I_IMUL_RM_32:
        multiplyMemory<u32>(op);
        break;
      case layout.I_IMUL_RR_64:
        setRegister<u64>(dst(op), multiply<u64>(register<u64>(dst(op)), register<u64>(src(op))));
        break;
      case layout.I_IMUL_RM_64:
        multiplyMemory<u64>(op);
        break;
      case layout.I_JO:
        if (condition(layout.CONDITION_O, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JNO:
        if (condition(layout.CONDITION_NO, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JB:
        if (condition(layout.CONDITION_B, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JAE:
        if (condition(layout.CONDITION_AE, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JE:
        if (condition(layout.CONDITION_E, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JNE:
        if (condition(layout.CONDITION_NE, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JBE:
        if (condition(layout.CONDITION_BE, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JA:
        if (condition(layout.CONDITION_A, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JS:
        if (condition(layout.CONDITION_S, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JNS:
        if (condition(layout.CONDITION_NS, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JP:
        if (condition(layout.CONDITION_P, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JNP:
        if (condition(layout.CONDITION_NP, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JL:
        if (condition(layout.CONDITION_L, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JGE:
        if (condition(layout.CONDITION_GE, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JLE:
        if (condition(layout.CONDITION_LE, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JG:
        if (condition(layout.CONDITION_G, flags())) {
          rip += load<u64>(op, OP_IMM);
          link = OP_TAKEN;
        }
        break;
      case layout.I_JMP:
        rip += load<u64>(op, OP_IMM);
        link = OP_TAKEN;
        break;
      case layout.I_JMP_R:
        rip = jumpTarget(op, register<u64>(src(op)), rip);
        link = OP_UNLINKED;
        break;
      case layout.I_JMP_M:
        rip = jumpTarget(op, load64(effectiveAddress(op)), rip);
        link = OP_UNLINKED;
        break;
      case layout.I_CALL:
        push64(rip + u64(length(op)));
        if (fault) break;
        rip += load<u64>(op, OP_IMM);
        link = OP_TAKEN;
        break;
      case layout.I_CALL_R:
        rip = call(op, register<u64>(src(op)), rip);
        link = OP_UNLINKED;
        break;
      case layout.I_CALL_M:
        rip = call(op, load64(effectiveAddress(op)), rip);
        link = OP_UNLINKED;
        break;
      case layout.I_RET:
        rip = ret(op, 0, rip);
        link = OP_UNLINKED;
        break;
      case layout.I_RET_I:
        rip = ret(op, load<u64>(op, OP_IMM), rip);
        link = OP_UNLINKED;
        break;
      case layout.I_PUSH_R:
        push64(register<u64>(src(op)));
        break;
      case layout.I_PUSH_I:
        push64(load<u64>(op, OP_IMM));
        break;
      case layout.I_PUSH_M:
        pushMemory(op);
        break;
      case layout.I_POP_R:
        popRegister(op);
        break;
      case layout.I_LEAVE:
        leave();
        break;
      case layout.I_SETCC_R:
        setRegister<u8>(dst(op), u64(conditionHolds(load<u8>(op, OP_KIND))));
        break;
      case layout.I_SETCC_M:
        store8(effectiveAddress(op), u64(conditionHolds(load<u8>(op, OP_KIND))));
        break;
      case layout.I_CMOV_32_R:
        setRegister<u32>(
          dst(op),
          conditionHolds(load<u8>(op, OP_KIND)) ? register<u32>(src(op)) : register<u32>(dst(op)),
        );
        break;
      case layout.I_CMOV_64_R:
        if (conditionHolds(load<u8>(op, OP_KIND))) setRegister<u64>(dst(op), register<u64>(src(op)));
        break;
      case layout.I_CMOV_32_M:
        conditionalMove<u32>(op);
        break;
      case layout.I_CMOV_64_M:
        conditionalMove<u64>(op);
        break;
      case layout.I_NOP:
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
      // In 32-bit code it may have wrapped.
      rip = load<u64>(cpu, VCPU_RIP);
    }
    op = next;
  }
  wrapRip();
  return budget - left;
}
