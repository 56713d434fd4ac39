import { type Gpa, gpa, rootOf } from '@introd/abi';
import { Assembler } from '@introd/x86/encoder';
import { describe, expect, it } from 'vitest';
import { offPolicy } from '../src/index.js';
import { LabRun, OPEN, userRead } from './lab-run.js';

/** Present, writable, user. */
const LINK = 7n;
const LARGE = 0x80n;

interface Evasion {
  readonly name: string;
  /** Takes the place of the attack's write. RDI = address of the entry; all registers of the x64 convention may change. */
  readonly code: string;
  /** The value cannot be told in advance: the write is blocked and reported, without an alert. */
  readonly unknown?: true;
  /** RDI is the entry at another address, mapped for ring 3 too, by a page of this kind. */
  readonly alias?: 'small' | 'large';
}

const EVASIONS: readonly Evasion[] = [
  { name: 'a byte store', code: 'mov al, [rdi]\n or al, 4\n mov [rdi], al' },
  { name: 'XADD', code: 'mov eax, 4\n xadd [rdi], rax' },
  { name: 'STOSB with REP', code: 'mov al, [rdi]\n or al, 4\n mov ecx, 1\n cld\n rep stosb' },
  {
    name: 'MOVSB with REP from the stack',
    code: 'mov rax, [rdi]\n or al, 4\n push rax\n mov rsi, rsp\n mov ecx, 8\n cld\n rep movsb\n pop rax',
  },
  {
    name: 'PUSH with the stack at the entry',
    code: 'mov rax, [rdi]\n or al, 4\n mov rcx, rsp\n lea rsp, [rdi+8]\n push rax\n mov rsp, rcx',
  },
  {
    name: 'a store that begins in the entry before',
    code: 'mov rax, [rdi-4]\n mov ecx, 4\n shl rcx, 32\n or rax, rcx\n mov [rdi-4], rax',
  },
  {
    name: 'MOVUPS',
    code: 'mov rax, [rdi]\n or al, 4\n push qword [rdi+8]\n push rax\n movups xmm0, [rsp]\n add rsp, 16\n movups [rdi], xmm0',
  },
  { name: 'MOVQ of a vector register', code: 'mov rax, [rdi]\n or al, 4\n movq xmm0, rax\n movq [rdi], xmm0' },
  {
    // maskmovdqu xmm0, xmm1
    name: 'MASKMOVDQU of the lowest byte',
    code: 'mov rax, [rdi]\n or al, 4\n movq xmm0, rax\n mov eax, 0x80\n movq xmm1, rax\n db 0x66, 0x0f, 0xf7, 0xc1',
  },
  {
    // The high byte of the control word has the bits of P, R/W and U/S.
    name: 'FNSTCW that ends in the entry',
    code: 'push 0x77f\n fldcw [rsp]\n pop rax\n fnstcw [rdi-1]',
    unknown: true,
  },
  {
    name: 'present cleared with U/S set, then present set',
    code: 'mov rax, [rdi]\n xor rax, 5\n mov [rdi], rax\n or rax, 1\n mov [rdi], rax',
    alias: 'small',
  },
  {
    name: 'the entry cleared, then set',
    code: 'mov rax, [rdi]\n or al, 4\n mov qword [rdi], 0\n mov [rdi], rax',
    alias: 'small',
  },
  { name: 'another mapping of 4 KiB', code: 'or byte [rdi], 4', alias: 'small' },
  { name: 'another mapping of 2 MiB', code: 'or byte [rdi], 4', alias: 'large' },
];

/** Zero pages at the end of memory, which nothing uses. */
function tables(run: LabRun, count: number): number[] {
  const region = run.lab.machine.memoryRegions.at(-1)!;
  return Array.from({ length: count }, (_, i) => {
    const page = region.start + region.size - (i + 1) * 4096;
    expect(run.lab.machine.mapPage((page / 4096) as never)!.every((byte) => byte === 0)).toBe(true);
    return page;
  });
}

function put(run: LabRun, address: number, value: bigint): void {
  run.lab.machine.writePhysical(gpa(address), new Uint8Array(BigUint64Array.of(value).buffer));
}

/** Maps the PML4 of System once more; returns the virtual address of the self-map entry there. */
function mapAlias(run: LabRun, kind: 'small' | 'large'): bigint {
  const { systemCr3, selfMapIndex } = run.lab.truth;
  const root = rootOf(systemCr3) as number;
  const page = run.lab.machine.mapPage((root / 4096) as never)!;
  const entries = new BigUint64Array(page.buffer, page.byteOffset, 512);
  const slot = entries.findIndex((entry, index) => index >= 0x40 && index < 0x100 && entry === 0n);
  expect(slot).toBeGreaterThan(0);
  const [pdpt, pd, pt] = tables(run, 3) as [number, number, number];
  put(run, root + slot * 8, BigInt(pdpt) | LINK);
  put(run, pdpt, BigInt(pd) | LINK);
  const inLarge = root % 0x20_0000;
  put(run, pd, kind === 'large' ? BigInt(root - inLarge) | LINK | LARGE : BigInt(pt) | LINK);
  put(run, pt, BigInt(root) | LINK);
  return (BigInt(slot) << 39n) + BigInt((kind === 'large' ? inLarge : 0) + selfMapIndex * 8);
}

/** Physical address of a byte of the kernel. */
function physicalOf(run: LabRun, va: bigint): Gpa {
  const translation = run.engine.translator.translate(run.lab.truth.systemCr3, va as never);
  if (translation.status !== 'ok') throw new Error(`the kernel's code is ${translation.status}`);
  return translation.gpa;
}

/** Boots a guest whose attack writes in another way, and plays it; gives how often the entry was open. */
function play(run: LabRun, { code, alias }: Evasion): { open: number; lines: readonly string[] } {
  const at = run.lab.labels.get('LabSelfMapMov')!;
  // Kernel code may not touch pages of ring 3 while EFLAGS.AC is clear.
  const detour = alias === undefined ? '' : `stac\n mov rdi, ${mapAlias(run, alias)}\n`;
  const bytes = new Assembler()
    .section('code', at)
    .assemble(`push rdi\n ${detour}${code}\n pop rdi\n ${alias ? 'clac' : ''}\n ret`)
    .link();
  for (const [index, byte] of bytes.sections.get('code')!.bytes.entries()) {
    run.lab.machine.writePhysical(physicalOf(run, at + BigInt(index)), Uint8Array.of(byte));
  }
  let lines: readonly string[] = [];
  const open = run.countOpen('system', () => {
    lines = run.play({ name: 'self-map', form: 'mov', target: 'system' });
  });
  expect(lines).toContain('lab: wrote');
  return { open, lines };
}

describe('an attack in System that tries to get round the hook', () => {
  it.each(EVASIONS)('by $name is blocked: P and U/S are never both set', (evasion) => {
    const run = new LabRun({ seed: 9 }).boot();
    const { open, lines } = play(run, evasion);
    expect(open).toBe(0);
    expect(userRead(lines)).toEqual([]);
    expect(run.entry('system') & OPEN).not.toBe(OPEN);
    run.tick();
    expect(run.alerts.map(({ verdict, victim }) => [verdict, victim.process.pid])).toEqual(
      evasion.unknown ? [] : [['blocked', 4]],
    );
    expect(run.problems.map((problem) => problem.split(':')[0])).toEqual(
      evasion.unknown ? ['unknown-page-table-write'] : [],
    );
  });

  it.each(EVASIONS)('by $name succeeds when nobody guards, so the block is real', (evasion) => {
    const run = new LabRun({ seed: 9 }, { policy: offPolicy }).boot();
    expect(play(run, evasion).open).toBeGreaterThan(0);
    expect(run.alerts).toEqual([]);
  });
});
