/** Forms that the translator knows and that are not compared with a host processor, and why. */
export const excludedForms: readonly { reason: string; forms: RegExp }[] = [
  {
    reason: 'what it tells is the machine’s own: its features, clock, counters, VCPU number and extended state',
    forms: /^(Cpuid|Rdtsc|Rdtscp|Rdpmc|Rdpid_r64|Xgetbv)$/,
  },
  {
    reason: 'leaves user code for the kernel or the hypervisor: test/{events,exits,mode-switches}.test.ts have it',
    forms: /^(Syscall|Sysenter|Sysexit[dq]|Vmcall|Int1|Int3)$/,
  },
  {
    reason:
      'far control flow goes through the host kernel’s descriptor tables: test/{gates,mode-switches}.test.ts have it',
    forms: /^(Call_m16|Jmp_m16|Retf|Iretw)/,
  },
  {
    reason: 'the host kernel’s descriptors decide, or UMIP hides them from user code',
    forms: /^(Lar|Lsl|Verr|Verw|Sldt|Str|Smsw|Sgdt|Sidt)_/,
  },
  {
    reason: 'loads FS or GS, which the native side needs, or SS by way of a far pointer',
    forms: /^(Pop[wq]_(FS|GS)|L[sfg]s_r|(Rd|Wr)[fg]sbase_)/,
  },
  {
    reason: 'compared by whole cases of their own, which restore an area and save it again: generate-state-area.ts',
    forms: /^(Fxsave|Fxrstor|Xsave|Xsaveopt|Xsavec|Xrstor)(64)?_m/,
  },
  {
    reason: 'with a register operand it is NOP on Intel’s processors and #UD on AMD’s; with memory it is a prefetch',
    forms: /^Reservednop_rm\d+_r\d+_0F0D$/,
  },
  {
    reason: 'in 64-bit mode only AMD’s processors branch to 16 bits: the decoder gives it in 16- and 32-bit code',
    forms: /^(Call|J[a-z]+|Loopn?e?)_(rel16|rm16|rel8_16(_\w+)?)$|^Retnw/,
  },
  { reason: 'the decoder takes its bytes for no instruction, which is #UD as well', forms: /^Ud0$/ },
];
