import { Code, CpuidFeature, Instruction } from 'iced-x86';

/** A list of names in running text. */
function names(text: string): readonly string[] {
  return text.trim().split(/\s+/);
}

/**
 * Every form that is compared with the host processor, by the names of iced's `Code`. forms.test.ts keeps this equal to
 * what the translator knows, less the forms of excluded-forms.ts.
 */
export const formGroups: Readonly<Record<string, readonly string[]>> = {
  arithmetic: names(`
    Add_rm8_r8 Add_rm16_r16 Add_rm32_r32 Add_rm64_r64 Add_r8_rm8 Add_r16_rm16 Add_r32_rm32 Add_r64_rm64 Add_AL_imm8
    Add_AX_imm16 Add_EAX_imm32 Add_RAX_imm32 Adc_rm8_r8 Adc_rm16_r16 Adc_rm32_r32 Adc_rm64_r64 Adc_r8_rm8
    Adc_r16_rm16 Adc_r32_rm32 Adc_r64_rm64 Adc_AL_imm8 Adc_AX_imm16 Adc_EAX_imm32 Adc_RAX_imm32 Sbb_rm8_r8
    Sbb_rm16_r16 Sbb_rm32_r32 Sbb_rm64_r64 Sbb_r8_rm8 Sbb_r16_rm16 Sbb_r32_rm32 Sbb_r64_rm64 Sbb_AL_imm8
    Sbb_AX_imm16 Sbb_EAX_imm32 Sbb_RAX_imm32 Sub_rm8_r8 Sub_rm16_r16 Sub_rm32_r32 Sub_rm64_r64 Sub_r8_rm8
    Sub_r16_rm16 Sub_r32_rm32 Sub_r64_rm64 Sub_AL_imm8 Sub_AX_imm16 Sub_EAX_imm32 Sub_RAX_imm32 Cmp_rm8_r8
    Cmp_rm16_r16 Cmp_rm32_r32 Cmp_rm64_r64 Cmp_r8_rm8 Cmp_r16_rm16 Cmp_r32_rm32 Cmp_r64_rm64 Cmp_AL_imm8
    Cmp_AX_imm16 Cmp_EAX_imm32 Cmp_RAX_imm32 Add_rm8_imm8 Adc_rm8_imm8 Sbb_rm8_imm8 Sub_rm8_imm8 Cmp_rm8_imm8
    Add_rm16_imm16 Add_rm32_imm32 Add_rm64_imm32 Adc_rm16_imm16 Adc_rm32_imm32 Adc_rm64_imm32 Sbb_rm16_imm16
    Sbb_rm32_imm32 Sbb_rm64_imm32 Sub_rm16_imm16 Sub_rm32_imm32 Sub_rm64_imm32 Cmp_rm16_imm16 Cmp_rm32_imm32
    Cmp_rm64_imm32 Add_rm16_imm8 Add_rm32_imm8 Add_rm64_imm8 Adc_rm16_imm8 Adc_rm32_imm8 Adc_rm64_imm8 Sbb_rm16_imm8
    Sbb_rm32_imm8 Sbb_rm64_imm8 Sub_rm16_imm8 Sub_rm32_imm8 Sub_rm64_imm8 Cmp_rm16_imm8 Cmp_rm32_imm8 Cmp_rm64_imm8
    Neg_rm8 Neg_rm16 Neg_rm32 Neg_rm64 Inc_rm8 Dec_rm8 Inc_rm16 Inc_rm32 Inc_rm64 Dec_rm16 Dec_rm32 Dec_rm64
  `),
  logic: names(`
    Or_rm8_r8 Or_rm16_r16 Or_rm32_r32 Or_rm64_r64 Or_r8_rm8 Or_r16_rm16 Or_r32_rm32 Or_r64_rm64 Or_AL_imm8
    Or_AX_imm16 Or_EAX_imm32 Or_RAX_imm32 And_rm8_r8 And_rm16_r16 And_rm32_r32 And_rm64_r64 And_r8_rm8 And_r16_rm16
    And_r32_rm32 And_r64_rm64 And_AL_imm8 And_AX_imm16 And_EAX_imm32 And_RAX_imm32 Xor_rm8_r8 Xor_rm16_r16
    Xor_rm32_r32 Xor_rm64_r64 Xor_r8_rm8 Xor_r16_rm16 Xor_r32_rm32 Xor_r64_rm64 Xor_AL_imm8 Xor_AX_imm16
    Xor_EAX_imm32 Xor_RAX_imm32 Or_rm8_imm8 And_rm8_imm8 Xor_rm8_imm8 Or_rm16_imm16 Or_rm32_imm32 Or_rm64_imm32
    And_rm16_imm16 And_rm32_imm32 And_rm64_imm32 Xor_rm16_imm16 Xor_rm32_imm32 Xor_rm64_imm32 Or_rm16_imm8
    Or_rm32_imm8 Or_rm64_imm8 And_rm16_imm8 And_rm32_imm8 And_rm64_imm8 Xor_rm16_imm8 Xor_rm32_imm8 Xor_rm64_imm8
    Test_rm8_r8 Test_rm16_r16 Test_rm32_r32 Test_rm64_r64 Test_AL_imm8 Test_AX_imm16 Test_EAX_imm32 Test_RAX_imm32
    Test_rm8_imm8 Test_rm8_imm8_F6r1 Not_rm8 Test_rm16_imm16 Test_rm32_imm32 Test_rm64_imm32 Test_rm16_imm16_F7r1
    Test_rm32_imm32_F7r1 Test_rm64_imm32_F7r1 Not_rm16 Not_rm32 Not_rm64
  `),
  shifts: names(`
    Rol_rm8_imm8 Ror_rm8_imm8 Rcl_rm8_imm8 Rcr_rm8_imm8 Shl_rm8_imm8 Shr_rm8_imm8 Sal_rm8_imm8 Sar_rm8_imm8
    Rol_rm16_imm8 Rol_rm32_imm8 Rol_rm64_imm8 Ror_rm16_imm8 Ror_rm32_imm8 Ror_rm64_imm8 Rcl_rm16_imm8 Rcl_rm32_imm8
    Rcl_rm64_imm8 Rcr_rm16_imm8 Rcr_rm32_imm8 Rcr_rm64_imm8 Shl_rm16_imm8 Shl_rm32_imm8 Shl_rm64_imm8 Shr_rm16_imm8
    Shr_rm32_imm8 Shr_rm64_imm8 Sal_rm16_imm8 Sal_rm32_imm8 Sal_rm64_imm8 Sar_rm16_imm8 Sar_rm32_imm8 Sar_rm64_imm8
    Rol_rm8_1 Ror_rm8_1 Rcl_rm8_1 Rcr_rm8_1 Shl_rm8_1 Shr_rm8_1 Sal_rm8_1 Sar_rm8_1 Rol_rm16_1 Rol_rm32_1 Rol_rm64_1
    Ror_rm16_1 Ror_rm32_1 Ror_rm64_1 Rcl_rm16_1 Rcl_rm32_1 Rcl_rm64_1 Rcr_rm16_1 Rcr_rm32_1 Rcr_rm64_1 Shl_rm16_1
    Shl_rm32_1 Shl_rm64_1 Shr_rm16_1 Shr_rm32_1 Shr_rm64_1 Sal_rm16_1 Sal_rm32_1 Sal_rm64_1 Sar_rm16_1 Sar_rm32_1
    Sar_rm64_1 Rol_rm8_CL Ror_rm8_CL Rcl_rm8_CL Rcr_rm8_CL Shl_rm8_CL Shr_rm8_CL Sal_rm8_CL Sar_rm8_CL Rol_rm16_CL
    Rol_rm32_CL Rol_rm64_CL Ror_rm16_CL Ror_rm32_CL Ror_rm64_CL Rcl_rm16_CL Rcl_rm32_CL Rcl_rm64_CL Rcr_rm16_CL
    Rcr_rm32_CL Rcr_rm64_CL Shl_rm16_CL Shl_rm32_CL Shl_rm64_CL Shr_rm16_CL Shr_rm32_CL Shr_rm64_CL Sal_rm16_CL
    Sal_rm32_CL Sal_rm64_CL Sar_rm16_CL Sar_rm32_CL Sar_rm64_CL Shld_rm16_r16_imm8 Shld_rm32_r32_imm8
    Shld_rm64_r64_imm8 Shld_rm16_r16_CL Shld_rm32_r32_CL Shld_rm64_r64_CL Shrd_rm16_r16_imm8 Shrd_rm32_r32_imm8
    Shrd_rm64_r64_imm8 Shrd_rm16_r16_CL Shrd_rm32_r32_CL Shrd_rm64_r64_CL
  `),
  multiplication: names(`
    Imul_r16_rm16_imm16 Imul_r32_rm32_imm32 Imul_r64_rm64_imm32 Imul_r16_rm16_imm8 Imul_r32_rm32_imm8
    Imul_r64_rm64_imm8 Mul_rm8 Imul_rm8 Div_rm8 Idiv_rm8 Mul_rm16 Mul_rm32 Mul_rm64 Imul_rm16 Imul_rm32 Imul_rm64
    Div_rm16 Div_rm32 Div_rm64 Idiv_rm16 Idiv_rm32 Idiv_rm64 Imul_r16_rm16 Imul_r32_rm32 Imul_r64_rm64
  `),
  bits: names(`
    Bt_rm16_r16 Bt_rm32_r32 Bt_rm64_r64 Bts_rm16_r16 Bts_rm32_r32 Bts_rm64_r64 Btr_rm16_r16 Btr_rm32_r32
    Btr_rm64_r64 Popcnt_r16_rm16 Popcnt_r32_rm32 Popcnt_r64_rm64 Bt_rm16_imm8 Bt_rm32_imm8 Bt_rm64_imm8
    Bts_rm16_imm8 Bts_rm32_imm8 Bts_rm64_imm8 Btr_rm16_imm8 Btr_rm32_imm8 Btr_rm64_imm8 Btc_rm16_imm8 Btc_rm32_imm8
    Btc_rm64_imm8 Btc_rm16_r16 Btc_rm32_r32 Btc_rm64_r64 Bsf_r16_rm16 Bsf_r32_rm32 Bsf_r64_rm64 Tzcnt_r16_rm16
    Tzcnt_r32_rm32 Tzcnt_r64_rm64 Bsr_r16_rm16 Bsr_r32_rm32 Bsr_r64_rm64 Lzcnt_r16_rm16 Lzcnt_r32_rm32
    Lzcnt_r64_rm64 Bswap_r16 Bswap_r32 Bswap_r64
  `),
  'bit-extensions': names(`
    Crc32_r32_rm8 Crc32_r64_rm8 Crc32_r32_rm16 Crc32_r32_rm32 Crc32_r64_rm64 VEX_Andn_r32_r32_rm32
    VEX_Andn_r64_r64_rm64 VEX_Blsr_r32_rm32 VEX_Blsr_r64_rm64 VEX_Blsmsk_r32_rm32 VEX_Blsmsk_r64_rm64
    VEX_Blsi_r32_rm32 VEX_Blsi_r64_rm64 VEX_Bzhi_r32_rm32_r32 VEX_Bzhi_r64_rm64_r64 VEX_Pext_r32_r32_rm32
    VEX_Pext_r64_r64_rm64 VEX_Pdep_r32_r32_rm32 VEX_Pdep_r64_r64_rm64 Adcx_r32_rm32 Adcx_r64_rm64 Adox_r32_rm32
    Adox_r64_rm64 VEX_Mulx_r32_r32_rm32 VEX_Mulx_r64_r64_rm64 VEX_Bextr_r32_rm32_r32 VEX_Bextr_r64_rm64_r64
    VEX_Shlx_r32_rm32_r32 VEX_Shlx_r64_rm64_r64 VEX_Sarx_r32_rm32_r32 VEX_Sarx_r64_rm64_r64 VEX_Shrx_r32_rm32_r32
    VEX_Shrx_r64_rm64_r64 VEX_Rorx_r32_rm32_imm8 VEX_Rorx_r64_rm64_imm8
  `),
  moves: names(`
    Movsxd_r16_rm16 Movsxd_r32_rm32 Movsxd_r64_rm32 Xchg_rm8_r8 Xchg_rm16_r16 Xchg_rm32_r32 Xchg_rm64_r64 Mov_rm8_r8
    Mov_rm16_r16 Mov_rm32_r32 Mov_rm64_r64 Mov_r8_rm8 Mov_r16_rm16 Mov_r32_rm32 Mov_r64_rm64 Mov_rm16_Sreg
    Mov_r32m16_Sreg Mov_r64m16_Sreg Lea_r16_m Lea_r32_m Lea_r64_m Mov_Sreg_rm16 Mov_Sreg_r32m16 Mov_Sreg_r64m16
    Xchg_r16_AX Xchg_r32_EAX Xchg_r64_RAX Cbw Cwde Cdqe Cwd Cdq Cqo Mov_AL_moffs8 Mov_AX_moffs16 Mov_EAX_moffs32
    Mov_RAX_moffs64 Mov_moffs8_AL Mov_moffs16_AX Mov_moffs32_EAX Mov_moffs64_RAX Mov_r8_imm8 Mov_r16_imm16
    Mov_r32_imm32 Mov_r64_imm64 Mov_rm8_imm8 Mov_rm16_imm16 Mov_rm32_imm32 Mov_rm64_imm32 Leavew Leaveq Xlat_m8
    Movzx_r16_rm8 Movzx_r32_rm8 Movzx_r64_rm8 Movzx_r16_rm16 Movzx_r32_rm16 Movzx_r64_rm16 Movsx_r16_rm8
    Movsx_r32_rm8 Movsx_r64_rm8 Movsx_r16_rm16 Movsx_r32_rm16 Movsx_r64_rm16 Movnti_m32_r32 Movnti_m64_r64
    Movbe_r16_m16 Movbe_r32_m32 Movbe_r64_m64 Movbe_m16_r16 Movbe_m32_r32 Movbe_m64_r64
  `),
  exchanges: names(`
    Cmpxchg_rm8_r8 Cmpxchg_rm16_r16 Cmpxchg_rm32_r32 Cmpxchg_rm64_r64 Xadd_rm8_r8 Xadd_rm16_r16 Xadd_rm32_r32
    Xadd_rm64_r64 Cmpxchg8b_m64 Cmpxchg16b_m128
  `),
  'conditional-moves': names(`
    Cmovo_r16_rm16 Cmovo_r32_rm32 Cmovo_r64_rm64 Cmovno_r16_rm16 Cmovno_r32_rm32 Cmovno_r64_rm64 Cmovb_r16_rm16
    Cmovb_r32_rm32 Cmovb_r64_rm64 Cmovae_r16_rm16 Cmovae_r32_rm32 Cmovae_r64_rm64 Cmove_r16_rm16 Cmove_r32_rm32
    Cmove_r64_rm64 Cmovne_r16_rm16 Cmovne_r32_rm32 Cmovne_r64_rm64 Cmovbe_r16_rm16 Cmovbe_r32_rm32 Cmovbe_r64_rm64
    Cmova_r16_rm16 Cmova_r32_rm32 Cmova_r64_rm64 Cmovs_r16_rm16 Cmovs_r32_rm32 Cmovs_r64_rm64 Cmovns_r16_rm16
    Cmovns_r32_rm32 Cmovns_r64_rm64 Cmovp_r16_rm16 Cmovp_r32_rm32 Cmovp_r64_rm64 Cmovnp_r16_rm16 Cmovnp_r32_rm32
    Cmovnp_r64_rm64 Cmovl_r16_rm16 Cmovl_r32_rm32 Cmovl_r64_rm64 Cmovge_r16_rm16 Cmovge_r32_rm32 Cmovge_r64_rm64
    Cmovle_r16_rm16 Cmovle_r32_rm32 Cmovle_r64_rm64 Cmovg_r16_rm16 Cmovg_r32_rm32 Cmovg_r64_rm64 Seto_rm8 Setno_rm8
    Setb_rm8 Setae_rm8 Sete_rm8 Setne_rm8 Setbe_rm8 Seta_rm8 Sets_rm8 Setns_rm8 Setp_rm8 Setnp_rm8 Setl_rm8
    Setge_rm8 Setle_rm8 Setg_rm8
  `),
  branches: names(`
    Jo_rel8_64 Jno_rel8_64 Jb_rel8_64 Jae_rel8_64 Je_rel8_64 Jne_rel8_64 Jbe_rel8_64 Ja_rel8_64 Js_rel8_64
    Jns_rel8_64 Jp_rel8_64 Jnp_rel8_64 Jl_rel8_64 Jge_rel8_64 Jle_rel8_64 Jg_rel8_64 Retnq_imm16 Retnq Iretd Iretq
    Loopne_rel8_64_ECX Loopne_rel8_64_RCX Loope_rel8_64_ECX Loope_rel8_64_RCX Loop_rel8_64_ECX Loop_rel8_64_RCX
    Jecxz_rel8_64 Jrcxz_rel8_64 Call_rel32_64 Jmp_rel32_64 Jmp_rel8_64 Call_rm64 Jmp_rm64 Jo_rel32_64 Jno_rel32_64
    Jb_rel32_64 Jae_rel32_64 Je_rel32_64 Jne_rel32_64 Jbe_rel32_64 Ja_rel32_64 Js_rel32_64 Jns_rel32_64 Jp_rel32_64
    Jnp_rel32_64 Jl_rel32_64 Jge_rel32_64 Jle_rel32_64 Jg_rel32_64
  `),
  stack: names(`
    Push_r16 Push_r64 Pop_r16 Pop_r64 Push_imm16 Pushq_imm32 Pushw_imm8 Pushq_imm8 Pop_rm16 Pop_rm64 Pushfw Pushfq
    Popfw Popfq Enterw_imm16_imm8 Enterq_imm16_imm8 Push_rm16 Push_rm64 Pushw_FS Pushq_FS Pushw_GS Pushq_GS
  `),
  strings: names(`
    Movsb_m8_m8 Movsw_m16_m16 Movsd_m32_m32 Movsq_m64_m64 Cmpsb_m8_m8 Cmpsw_m16_m16 Cmpsd_m32_m32 Cmpsq_m64_m64
    Stosb_m8_AL Stosw_m16_AX Stosd_m32_EAX Stosq_m64_RAX Lodsb_AL_m8 Lodsw_AX_m16 Lodsd_EAX_m32 Lodsq_RAX_m64
    Scasb_AL_m8 Scasw_AX_m16 Scasd_EAX_m32 Scasq_RAX_m64
  `),
  flags: names(`
    Sahf Lahf Cmc Clc Stc Cld Std Cldemote_m8
  `),
  'no-operation': names(`
    Nopw Nopd Nopq Pause Prefetch_m8 Prefetchw_m8 Prefetchwt1_m8 Reservednop_rm16_r16_0F18 Reservednop_rm32_r32_0F18
    Reservednop_rm64_r64_0F18 Reservednop_rm16_r16_0F19 Reservednop_rm32_r32_0F19 Reservednop_rm64_r64_0F19
    Reservednop_rm16_r16_0F1A Reservednop_rm32_r32_0F1A Reservednop_rm64_r64_0F1A Reservednop_rm16_r16_0F1B
    Reservednop_rm32_r32_0F1B Reservednop_rm64_r64_0F1B Reservednop_rm16_r16_0F1C Reservednop_rm32_r32_0F1C
    Reservednop_rm64_r64_0F1C Reservednop_rm16_r16_0F1D Reservednop_rm32_r32_0F1D Reservednop_rm64_r64_0F1D
    Reservednop_rm16_r16_0F1E Reservednop_rm32_r32_0F1E Reservednop_rm64_r64_0F1E Reservednop_rm16_r16_0F1F
    Reservednop_rm32_r32_0F1F Reservednop_rm64_r64_0F1F Prefetchnta_m8 Prefetcht0_m8 Prefetcht1_m8 Prefetcht2_m8
    Endbr64 Endbr32 Nop_rm16 Nop_rm32 Nop_rm64 Clwb_m8 Clflush_m8 Clflushopt_m8 Lfence Lfence_E9 Lfence_EA Lfence_EB
    Lfence_EC Lfence_ED Lfence_EE Lfence_EF Mfence Mfence_F1 Mfence_F2 Mfence_F3 Mfence_F4 Mfence_F5 Mfence_F6
    Mfence_F7 Sfence Sfence_F9 Sfence_FA Sfence_FB Sfence_FC Sfence_FD Sfence_FE Sfence_FF Prefetchreserved3_m8
    Prefetchreserved4_m8 Prefetchreserved5_m8 Prefetchreserved6_m8 Prefetchreserved7_m8 Prefetchit1_m8
    Prefetchit0_m8
  `),
  undefined: names(`
    Ud2 Ud1_r16_rm16 Ud1_r32_rm32 Ud1_r64_rm64 Ud0_r16_rm16 Ud0_r32_rm32 Ud0_r64_rm64
  `),
  'sse-moves': names(`
    Movups_xmm_xmmm128 Movupd_xmm_xmmm128 Movss_xmm_xmmm32 Movsd_xmm_xmmm64 Movups_xmmm128_xmm Movupd_xmmm128_xmm
    Movss_xmmm32_xmm Movsd_xmmm64_xmm Movhlps_xmm_xmm Movlps_xmm_m64 Movlpd_xmm_m64 Movlps_m64_xmm Movlpd_m64_xmm
    Unpcklpd_xmm_xmmm128 Unpckhpd_xmm_xmmm128 Movlhps_xmm_xmm Movhps_xmm_m64 Movhpd_xmm_m64 Movhps_m64_xmm
    Movhpd_m64_xmm Movaps_xmm_xmmm128 Movapd_xmm_xmmm128 Movaps_xmmm128_xmm Movapd_xmmm128_xmm Movntps_m128_xmm
    Movntpd_m128_xmm Andps_xmm_xmmm128 Andpd_xmm_xmmm128 Andnps_xmm_xmmm128 Andnpd_xmm_xmmm128 Orps_xmm_xmmm128
    Orpd_xmm_xmmm128 Xorps_xmm_xmmm128 Xorpd_xmm_xmmm128 Punpcklqdq_xmm_xmmm128 Punpckhqdq_xmm_xmmm128 Movd_xmm_rm32
    Movq_xmm_rm64 Movdqa_xmm_xmmm128 Movdqu_xmm_xmmm128 Movd_rm32_xmm Movq_rm64_xmm Movq_xmm_xmmm64
    Movdqa_xmmm128_xmm Movdqu_xmmm128_xmm Ldmxcsr_m32 Stmxcsr_m32 Movq_xmmm64_xmm Pand_xmm_xmmm128 Pandn_xmm_xmmm128
    Movntdq_m128_xmm Por_xmm_xmmm128 Pxor_xmm_xmmm128
  `),
  'vector-integers': names(`
    Punpcklbw_xmm_xmmm128 Punpcklwd_xmm_xmmm128 Punpckldq_xmm_xmmm128 Unpcklps_xmm_xmmm128 Unpckhps_xmm_xmmm128
    Packsswb_xmm_xmmm128 Pcmpgtb_xmm_xmmm128 Pcmpgtw_xmm_xmmm128 Pcmpgtd_xmm_xmmm128 Packuswb_xmm_xmmm128
    Punpckhbw_xmm_xmmm128 Punpckhwd_xmm_xmmm128 Punpckhdq_xmm_xmmm128 Packssdw_xmm_xmmm128 Pcmpeqb_xmm_xmmm128
    Pcmpeqw_xmm_xmmm128 Pcmpeqd_xmm_xmmm128 Paddq_xmm_xmmm128 Pmullw_xmm_xmmm128 Psubusb_xmm_xmmm128
    Psubusw_xmm_xmmm128 Pminub_xmm_xmmm128 Paddusb_xmm_xmmm128 Paddusw_xmm_xmmm128 Pmaxub_xmm_xmmm128
    Pavgb_xmm_xmmm128 Pavgw_xmm_xmmm128 Pmulhuw_xmm_xmmm128 Pmulhw_xmm_xmmm128 Psubsb_xmm_xmmm128 Psubsw_xmm_xmmm128
    Pminsw_xmm_xmmm128 Paddsb_xmm_xmmm128 Paddsw_xmm_xmmm128 Pmaxsw_xmm_xmmm128 Pmuludq_xmm_xmmm128
    Pmaddwd_xmm_xmmm128 Psadbw_xmm_xmmm128 Psubb_xmm_xmmm128 Psubw_xmm_xmmm128 Psubd_xmm_xmmm128 Psubq_xmm_xmmm128
    Paddb_xmm_xmmm128 Paddw_xmm_xmmm128 Paddd_xmm_xmmm128 Movsldup_xmm_xmmm128 Movshdup_xmm_xmmm128 Pshufb_xmm_xmmm128
    Pabsb_xmm_xmmm128 Pabsw_xmm_xmmm128 Pabsd_xmm_xmmm128
  `),
  'vector-elements': names(`
    Psrlw_xmm_xmmm128 Psrlw_xmm_imm8 Psrld_xmm_xmmm128 Psrld_xmm_imm8 Psrlq_xmm_xmmm128 Psrlq_xmm_imm8
    Psraw_xmm_xmmm128 Psraw_xmm_imm8 Psrad_xmm_xmmm128 Psrad_xmm_imm8 Psllw_xmm_xmmm128 Psllw_xmm_imm8
    Pslld_xmm_xmmm128 Pslld_xmm_imm8 Psllq_xmm_xmmm128 Psllq_xmm_imm8 Psrldq_xmm_imm8 Pslldq_xmm_imm8
    Pshufd_xmm_xmmm128_imm8 Pshufhw_xmm_xmmm128_imm8 Pshuflw_xmm_xmmm128_imm8 Shufps_xmm_xmmm128_imm8
    Shufpd_xmm_xmmm128_imm8 Palignr_xmm_xmmm128_imm8 Movmskps_r32_xmm Movmskps_r64_xmm Movmskpd_r32_xmm
    Movmskpd_r64_xmm Pmovmskb_r32_xmm Pmovmskb_r64_xmm Pinsrw_xmm_r32m16_imm8 Pinsrw_xmm_r64m16_imm8
    Pextrw_r32_xmm_imm8 Pextrw_r64_xmm_imm8 Movddup_xmm_xmmm64 Lddqu_xmm_m128 Movntdqa_xmm_m128 Maskmovdqu_rDI_xmm_xmm
  `),
  'x87-state': names(`
    Wait Fldcw_m2byte Fnstcw_m2byte Fnop Fnclex Fninit Fnstsw_m2byte Fnstsw_AX Emms
  `),
  privileged: names(`
    Insb_m8_DX Insw_m16_DX Insd_m32_DX Outsb_DX_m8 Outsw_DX_m16 Outsd_DX_m32 Int_imm8 In_AL_imm8 In_AX_imm8
    In_EAX_imm8 Out_imm8_AL Out_imm8_AX Out_imm8_EAX In_AL_DX In_AX_DX In_EAX_DX Out_DX_AL Out_DX_AX Out_DX_EAX Hlt
    Cli Sti Lldt_rm16 Lldt_r32m16 Lldt_r64m16 Ltr_rm16 Ltr_r32m16 Ltr_r64m16 Lgdt_m1664 Lidt_m1664 Lmsw_rm16
    Lmsw_r32m16 Lmsw_r64m16 Invlpg_m Clac Stac Xsetbv Swapgs Clts Sysretd Sysretq Invd Wbinvd Mov_r64_cr Mov_r64_dr
    Mov_cr_r64 Mov_dr_r64 Wrmsr Rdmsr Xsaves_mem Xsaves64_mem
    Xrstors_mem Xrstors64_mem
  `),
};

/** Extensions a form needs beyond the first x86-64 processors, by the names of iced's `CpuidFeature`. */
export function requiredFeatures(form: string): string[] {
  const instruction = Instruction.create(Code[form as keyof typeof Code]);
  const features = Array.from(instruction.cpuidFeatures(), (feature) => CpuidFeature[feature] as string);
  instruction.free();
  return features;
}
