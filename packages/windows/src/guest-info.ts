import type { Cr3, Gva } from '@introd/abi';

/** What is known about the Windows in a guest. */
export interface GuestInfo {
  /** Build number: 19041. */
  readonly build: number;
  readonly arch: 'x64';
  /** First address of the kernel image. */
  readonly kernelBase: Gva;
  /** Size of the kernel image in bytes. */
  readonly kernelSize: number;
  /** CR3 of the System process: all kernel memory is mapped under it. */
  readonly systemCr3: Cr3;
  /** Index of the PML4 entry that refers to the PML4 itself, 256..511. */
  readonly selfMapIndex: number;
  /** Whether the kernel runs on page tables of its own (KPTI). */
  readonly kptiActive: boolean;
  /** The symbol file of the kernel. */
  readonly pdb: {
    readonly name: string;
    /** 32 upper-case hex digits. */
    readonly guid: string;
    readonly age: number;
  };
}
