import { Code, CodeExt } from 'iced-x86';
import { excludedForms } from './excluded-forms.js';
import { formGroups } from './forms.js';

/** Whether instructions of a form exist in code of that bitness. */
export function isAvailable(form: string, bitness: 32 | 64): boolean {
  const info = CodeExt.opCode(Code[form as keyof typeof Code]);
  const result = info.isInstruction && info.isAvailableInMode(bitness);
  info.free();
  return result;
}

function names(text: string): readonly string[] {
  return text.trim().split(/\s+/);
}

/** Forms that 64-bit mode does not have. */
const ONLY_32: Readonly<Record<string, readonly string[]>> = {
  'stack-32': names(`
    Push_r32 Pop_r32 Push_rm32 Pop_rm32 Pushd_imm32 Pushd_imm8 Pushaw Pushad Popaw Popad Pushfd Popfd
    Enterd_imm16_imm8 Leaved Pushw_ES Pushd_ES Popw_ES Popd_ES Pushw_CS Pushd_CS Pushw_SS Pushd_SS Popw_SS Popd_SS
    Pushw_DS Pushd_DS Popw_DS Popd_DS Pushd_FS Pushd_GS
  `),
  'arithmetic-32': names(`
    Inc_r16 Inc_r32 Dec_r16 Dec_r32 Daa Das Aaa Aas Aam_imm8 Aad_imm8 Salc Add_rm8_imm8_82 Or_rm8_imm8_82
    Adc_rm8_imm8_82 Sbb_rm8_imm8_82 And_rm8_imm8_82 Sub_rm8_imm8_82 Xor_rm8_imm8_82 Cmp_rm8_imm8_82
  `),
  'branches-32': names(`
    Jo_rel8_32 Jno_rel8_32 Jb_rel8_32 Jae_rel8_32 Je_rel8_32 Jne_rel8_32 Jbe_rel8_32 Ja_rel8_32 Js_rel8_32 Jns_rel8_32
    Jp_rel8_32 Jnp_rel8_32 Jl_rel8_32 Jge_rel8_32 Jle_rel8_32 Jg_rel8_32 Jo_rel32_32 Jno_rel32_32 Jb_rel32_32
    Jae_rel32_32 Je_rel32_32 Jne_rel32_32 Jbe_rel32_32 Ja_rel32_32 Js_rel32_32 Jns_rel32_32 Jp_rel32_32 Jnp_rel32_32
    Jl_rel32_32 Jge_rel32_32 Jle_rel32_32 Jg_rel32_32 Loopne_rel8_32_CX Loopne_rel8_32_ECX Loope_rel8_32_CX
    Loope_rel8_32_ECX Loop_rel8_32_CX Loop_rel8_32_ECX Jcxz_rel8_32 Jecxz_rel8_32 Jmp_rel8_32 Jmp_rel32_32 Jmp_rm32
    Call_rel32_32 Call_rm32 Retnd_imm16 Retnd
  `),
  'checks-32': names(`
    Bound_r16_m1616 Bound_r32_m3232 Into Arpl_rm16_r16 Arpl_r32m16_r32
  `),
  'privileged-32': names(`
    Lgdt_m1632_16 Lgdt_m1632 Lidt_m1632_16 Lidt_m1632 Mov_r32_cr Mov_r32_dr Mov_cr_r32 Mov_dr_r32
  `),
};

/** Forms that are compared in 32-bit code, by group: those of 64-bit code that exist here too, and what it does not have. */
export const formGroups32: Readonly<Record<string, readonly string[]>> = {
  ...Object.fromEntries(
    Object.entries(formGroups)
      .map(([group, forms]) => [group, forms.filter((form) => isAvailable(form, 32) && form !== 'Sysretd')] as const)
      .filter(([, forms]) => forms.length > 0),
  ),
  ...ONLY_32,
};

/** Forms that the translator knows in 32-bit code and that are not compared there, and why. */
export const excludedForms32: readonly { reason: string; forms: RegExp }[] = [
  ...excludedForms.filter(({ forms }) => !forms.test('Jo_rel16')),
  {
    reason: 'a branch to 16 bits, where the host maps nothing',
    forms: /^(Call|J[a-z]+|Loopn?e?)_(rel16|rm16|rel8_16(_\w+)?)$|^Retnw/,
  },
  { reason: 'a far branch goes through the host kernel’s descriptor tables', forms: /^(Call|Jmp)_ptr/ },
  { reason: 'loads ES or DS by way of a far pointer, which the host kernel’s descriptors decide', forms: /^L[ed]s_r/ },
  { reason: 'loads FS or GS, which the native side needs', forms: /^Popd_[FG]S$/ },
  {
    reason: 'an instruction of the 8086 alone: the decoder takes its byte for the two-byte opcodes',
    forms: /^Popw_CS$/,
  },
  { reason: 'outside of 64-bit mode it is #UD on Intel’s processors and #GP on AMD’s', forms: /^Sysretd$/ },
  { reason: 'tells the machine’s own VCPU number', forms: /^Rdpid_r32$/ },
];
