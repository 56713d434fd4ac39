// CPUID (SDM vol. 2, CPUID): what the machine has, and FPU, MMX, SSE and SSE2 beyond that. 64-bit mode requires those
// four, so a guest expects them; of them the machine has all but the arithmetic of x87, MMX and floating point, which ends
// the guest as UNSUPPORTED. AVX state can be saved and restored, as leaf 0DH says, while leaf 1 offers no AVX.
import {
  BLOCK_ACTIVE,
  BLOCK_SIZE,
  COMPONENT_AVX,
  LIMIT_VCPUS,
  MAP_BLOCKS,
  VCPU_CR4,
  VCPU_INDEX,
  VCPU_XCR0,
  XSAVE_SIZE,
  XSAVE_YMM_HIGH,
} from './generated/layout';
import { XCR0_OFFERED } from './control';
import { cpu, general, RAX, RBX, RCX, RDX, setGeneral } from './state';

const CR4_OSXSAVE: u64 = 1 << 18;
/** Family 6, model 0x5e. */
const SIGNATURE: u32 = 0x506e3;
// Leaf 1, ECX: CMPXCHG16B, x2APIC, MOVBE, POPCNT, XSAVE, hypervisor.
const FEATURES_1C: u32 = (1 << 13) | (1 << 21) | (1 << 22) | (1 << 23) | (1 << 26) | (1 << 31);
// Leaf 1, EDX: FPU, PSE, TSC, MSR, PAE, CX8, APIC, SEP, PGE, CMOV, PAT, PSE36, CLFSH, MMX, FXSR, SSE, SSE2.
const FEATURES_1D: u32 = 0x078b_ab79;
// Leaf 7, EBX: FSGSBASE, BMI1, SMEP, BMI2, no FPU CS and DS, ADX, SMAP.
const FEATURES_7B: u32 = 1 | (1 << 3) | (1 << 7) | (1 << 8) | (1 << 13) | (1 << 19) | (1 << 20);
// Leaf 7, ECX: LA57, RDPID.
const FEATURES_7C: u32 = (1 << 16) | (1 << 22);
// Leaf 0DH, sub-leaf 1, EAX: XSAVEOPT, XSAVEC, XGETBV with ECX = 1, XSAVES.
const FEATURES_D1A: u32 = 0xf;
// Leaf 80000001, ECX: LAHF, LZCNT. EDX: SYSCALL, NX, 1 GiB pages, RDTSCP, long mode.
const FEATURES_EC: u32 = 1 | (1 << 5);
const FEATURES_ED: u32 = (1 << 11) | (1 << 20) | (1 << 26) | (1 << 27) | (1 << 29);

function answer(a: u32, b: u32, c: u32, d: u32): void {
  setGeneral(RAX, a);
  setGeneral(RBX, b);
  setGeneral(RCX, c);
  setGeneral(RDX, d);
}

function vcpuCount(): u32 {
  let count: u32 = 0;
  for (let i: usize = 0; i < LIMIT_VCPUS; i++) count += load<u32>(MAP_BLOCKS + i * BLOCK_SIZE + BLOCK_ACTIVE) != 0 ? 1 : 0;
  return count;
}

/** Leaf 0DH: components of XCR0 and sizes of XSAVE areas. */
function identifyExtendedState(sub: u32): void {
  const avx = (load<u64>(cpu + VCPU_XCR0) & COMPONENT_AVX) != 0;
  if (sub == 0) return answer(<u32>XCR0_OFFERED, <u32>(avx ? XSAVE_SIZE : XSAVE_YMM_HIGH), <u32>XSAVE_SIZE, 0);
  // IA32_XSS has no components.
  if (sub == 1) return answer(FEATURES_D1A, <u32>(avx ? XSAVE_SIZE : XSAVE_YMM_HIGH), 0, 0);
  if (sub == 2) return answer(<u32>(XSAVE_SIZE - XSAVE_YMM_HIGH), <u32>XSAVE_YMM_HIGH, 0, 0);
  answer(0, 0, 0, 0);
}

export function identify(): void {
  const leaf = <u32>general(RAX);
  const sub = <u32>general(RCX);
  const id = load<u32>(cpu + VCPU_INDEX);
  switch (leaf) {
    case 0:
      // "GenuineIntel"
      return answer(0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69);
    case 1: {
      const osxsave: u32 = load<u64>(cpu + VCPU_CR4) & CR4_OSXSAVE ? 1 << 27 : 0;
      return answer(SIGNATURE, (id << 24) | (vcpuCount() << 16) | 0x800, FEATURES_1C | osxsave, FEATURES_1D);
    }
    case 7:
      return sub == 0 ? answer(0, FEATURES_7B, FEATURES_7C, 0) : answer(0, 0, 0, 0);
    case 0xb:
      // One thread per core; all cores in one package.
      if (sub == 0) return answer(0, 1, 0x100, id);
      if (sub == 1) return answer(3, vcpuCount(), 0x201, id);
      return answer(0, 0, sub & 0xff, id);
    case 0xd:
      return identifyExtendedState(sub);
    case 0x4000_0000:
      // "introdSimHV "
      return answer(0x4000_0000, 0x7274_6e69, 0x6953_646f, 0x2056_486d);
    case 0x8000_0000:
      return answer(0x8000_0008, 0, 0, 0);
    case 0x8000_0001:
      return answer(0, 0, FEATURES_EC, FEATURES_ED);
    case 0x8000_0002:
      // "introd embedded machine"
      return answer(0x7274_6e69, 0x6520_646f, 0x6465_626d, 0x2064_6564);
    case 0x8000_0003:
      return answer(0x6863_616d, 0x0065_6e69, 0, 0);
    case 0x8000_0007:
      // The TSC runs at a constant rate.
      return answer(0, 0, 0, 0x100);
    case 0x8000_0008:
      // 52 physical and 57 linear address bits.
      return answer(0x3934, 0, 0, 0);
  }
  answer(0, 0, 0, 0);
}
