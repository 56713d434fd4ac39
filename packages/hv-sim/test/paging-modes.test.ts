import type { Gpa, VcpuRecord } from '@introd/abi';
import { beforeAll, describe, expect, test } from 'vitest';
import { AT, ProtectedGuest } from './protected-guest.js';
import { setPrivilege, AT as TINY, TinyGuest } from './tiny-guest.js';

const NX = 1n << 63n;
type Kind = 'read' | 'write' | 'execute';

interface Case {
  readonly leaf: bigint;
  readonly upper: bigint;
  readonly wp: boolean;
  readonly smep: boolean;
  readonly smap: boolean;
  readonly ac: boolean;
  readonly user: boolean;
  readonly kind: Kind;
}

/** A paging mode with one size of pages, in a guest that can be made to access one page. */
interface Subject {
  readonly name: string;
  /** Whether entries have a bit that forbids execution. */
  readonly noExecute: boolean;
  /** Whether there is an entry above the leaf that has rights. */
  readonly hasUpper: boolean;
  readonly entrySize: 4 | 8;
  /** Bit that makes the leaf one of a large page. */
  readonly large: bigint;
  /** Guest-physical addresses of leaf and upper entry. */
  readonly leafAt: number;
  readonly upperAt: number;
  /** What the leaf points to. */
  readonly frame: bigint;
  /** Linear address of the page. */
  readonly target: bigint;
  build(): Guest;
}

interface Guest {
  readonly record: VcpuRecord;
  /** Where the handler of #PF begins. */
  readonly handler: bigint;
  /** Builds the levels that the case does not change, and returns what the upper entry points to. */
  readonly below: bigint;
  write(address: number, value: bigint, size: 4 | 8): void;
  read(address: number, size: 4 | 8): bigint;
  /** Prepares one access of the page at RBX. */
  prepare(kind: Kind, user: boolean, target: bigint): void;
  run(): void;
}

function protectedGuest(paging: '32-bit' | 'pae'): Guest {
  const guest = new ProtectedGuest(paging, {
    memory: [{ start: 0 as Gpa, size: 0x80_0000 }],
  });
  guest.code('mov al, [ebx]\nalign 16\nmov [ebx], al');
  guest.code('mov al, [ebx]\nalign 16\nmov [ebx], al', AT.userCode);
  for (const at of [0x4_0000, 0x20_0000, 0x40_0000]) guest.write(at, Uint8Array.of(0x90, 0x90));
  if (paging === 'pae') guest.write64(AT.pdptes + 8, 0x6001n);
  const { record } = guest;
  return {
    record,
    handler: BigInt(AT.stubs + 14 * 16),
    below: 0x7000n,
    write: (at, value, size) => (size === 4 ? guest.write32(at, Number(value)) : guest.write64(at, value)),
    read: (at, size) => BigInt.asUintN(size * 8, BigInt(guest.read32(at)) | (BigInt(guest.read32(at + 4)) << 32n)),
    prepare: (kind, user, target) => {
      guest.enter();
      if (user) guest.enterUser();
      record.set('rbx', target);
      const code = BigInt(user ? AT.userCode : AT.code);
      record.set('rip', kind === 'execute' ? target : kind === 'read' ? code : code + 16n);
    },
    run: () => guest.machine.run(1),
  };
}

/** The tiny guest under a fifth level, whose second entry leads to the page under test. */
function fiveLevelGuest(): Guest {
  const guest = new TinyGuest({
    memory: [
      { start: 0 as Gpa, size: 0x40_0000 },
      { start: 0x4000_0000 as Gpa, size: 0x1000 },
    ],
  });
  guest.code('mov al, [rbx]\nalign 16\nmov [rbx], al');
  guest.code('mov al, [rbx]\nalign 16\nmov [rbx], al', TINY.userCode);
  for (const at of [0x4_0000, 0x20_0000, 0x4000_0000]) guest.write(at, Uint8Array.of(0x90, 0x90));
  guest.write64(0xb000, BigInt(TINY.pml4 | 7));
  guest.write64(0xc000, 0x5007n);
  guest.write64(0x5000, 0x6007n);
  guest.write64(0x6000, 0x7007n);
  const record = guest.machine.vcpu(0);
  return {
    record,
    handler: BigInt(TINY.stubs + 14 * 16),
    below: 0xc000n,
    write: (at, value) => guest.write64(at, value),
    read: (at) => guest.read64(at),
    prepare: (kind, user, target) => {
      setPrivilege(record, user ? 3 : 0);
      record.set('cr3', 0xb000n);
      record.set('rsp', BigInt(user ? TINY.userStack : TINY.stack));
      record.set('rbx', target);
      const code = BigInt(user ? TINY.userCode : TINY.code);
      record.set('rip', kind === 'execute' ? target : kind === 'read' ? code : code + 16n);
    },
    run: () => guest.machine.run(1),
  };
}

const subjects: readonly Subject[] = [
  {
    name: '32-bit paging, 4 KiB',
    noExecute: false,
    hasUpper: true,
    entrySize: 4,
    large: 0n,
    upperAt: AT.directory32 + 0x100 * 4,
    leafAt: 0x7000,
    frame: 0x4_0000n,
    target: 0x4000_0000n,
    build: () => protectedGuest('32-bit'),
  },
  {
    name: '32-bit paging, 4 MiB',
    noExecute: false,
    hasUpper: false,
    entrySize: 4,
    large: 0x80n,
    upperAt: 0,
    leafAt: AT.directory32 + 0x100 * 4,
    frame: 0x40_0000n,
    target: 0x4000_0000n,
    build: () => protectedGuest('32-bit'),
  },
  {
    name: 'PAE paging, 4 KiB',
    noExecute: true,
    hasUpper: true,
    entrySize: 8,
    large: 0n,
    upperAt: 0x6000,
    leafAt: 0x7000,
    frame: 0x4_0000n,
    target: 0x4000_0000n,
    build: () => protectedGuest('pae'),
  },
  {
    name: 'PAE paging, 2 MiB',
    noExecute: true,
    hasUpper: false,
    entrySize: 8,
    large: 0x80n,
    upperAt: 0,
    leafAt: 0x6000,
    frame: 0x20_0000n,
    target: 0x4000_0000n,
    build: () => protectedGuest('pae'),
  },
  ...(
    [
      ['4 KiB', 0n, 0x7000, 0x4_0000n],
      ['2 MiB', 0x80n, 0x6000, 0x20_0000n],
      ['1 GiB', 0x80n, 0x5000, 0x4000_0000n],
    ] as const
  ).map(
    ([size, large, leafAt, frame]): Subject => ({
      name: `5-level paging, ${size}`,
      noExecute: true,
      hasUpper: true,
      entrySize: 8,
      large,
      upperAt: 0xb008,
      leafAt,
      frame,
      target: 1n << 48n,
      build: fiveLevelGuest,
    }),
  ),
];

/** What the SDM (vol. 3A, 4.6 and 4.7) says, written down without looking at the walker: the error code, or undefined. */
function expected(c: Case, subject: Subject): number | undefined {
  const upper = subject.hasUpper ? c.upper : 7n;
  const tellsFetch = subject.noExecute || c.smep;
  const code = (c.kind === 'write' ? 2 : 0) | (c.user ? 4 : 0) | (c.kind === 'execute' && tellsFetch ? 16 : 0);
  if ((c.leaf & upper & 1n) === 0n) return code;
  const both = c.leaf & upper;
  const userPage = (both & 4n) !== 0n;
  const writable = (both & 2n) !== 0n;
  const noExecute = ((c.leaf | upper) & NX) !== 0n;
  let permitted: boolean;
  if (c.user) {
    permitted = userPage && (c.kind !== 'write' || writable) && (c.kind !== 'execute' || !noExecute);
  } else if (c.kind === 'execute') {
    permitted = !noExecute && !(userPage && c.smep);
  } else {
    permitted = (c.kind === 'read' || writable || !c.wp) && !(userPage && c.smap && !c.ac);
  }
  return permitted ? undefined : code | 1;
}

function* cases(subject: Subject): Generator<Case> {
  const booleans = [false, true];
  const nx = subject.noExecute ? [0n, NX] : [0n];
  for (const leafBits of [0n, 1n, 3n, 5n, 7n])
    for (const leafNx of nx)
      for (const upperBits of subject.hasUpper ? [0n, 1n, 3n, 5n, 7n] : [7n])
        for (const upperNx of subject.hasUpper ? nx : [0n])
          for (const user of booleans)
            for (const kind of ['read', 'write', 'execute'] as const)
              for (const wp of booleans)
                for (const smep of booleans)
                  for (const smap of booleans)
                    for (const ac of booleans)
                      yield { leaf: leafBits | leafNx, upper: upperBits | upperNx, user, kind, wp, smep, smap, ac };
}

describe.each(subjects)('$name', (subject) => {
  let guest: Guest;

  beforeAll(() => {
    guest = subject.build();
  });

  /** Lets one access happen; returns the error code of its page fault, or undefined. */
  function access(c: Case): number | undefined {
    const { record } = guest;
    if (subject.hasUpper) guest.write(subject.upperAt, guest.below | c.upper, subject.entrySize);
    guest.write(subject.leafAt, subject.frame | c.leaf | subject.large, subject.entrySize);
    guest.prepare(c.kind, c.user, subject.target);
    const bit = (on: boolean, number: bigint): bigint => (on ? 1n << number : 0n);
    record.set('cr0', (record.get('cr0') & ~(1n << 16n)) | bit(c.wp, 16n));
    const cr4 = record.get('cr4') & ~(3n << 20n);
    record.set('cr4', cr4 | bit(c.smep, 20n) | bit(c.smap, 21n) | bit(subject.name.startsWith('5'), 12n));
    record.set('rflags', 2n | bit(c.ac, 18n));
    guest.run();
    if (record.rip !== guest.handler) return undefined;
    expect(record.get('cr2')).toBe(subject.target);
    return Number(guest.read(Number(record.get('rsp')), 4) & 0xffffn);
  }

  test('grants and refuses as the SDM says, for every combination of rights, and sets accessed and dirty bits', () => {
    let count = 0;
    for (const c of cases(subject)) {
      const should = expected(c, subject);
      const did = access(c);
      if (did !== should)
        throw new Error(
          `${JSON.stringify(c, (_, v) => (typeof v === 'bigint' ? v.toString(16) : v))}: ${did}, not ${should}`,
        );
      const leaf = guest.read(subject.leafAt, subject.entrySize) & 0x60n;
      if (leaf !== (should === undefined ? (c.kind === 'write' ? 0x60n : 0x20n) : 0n))
        throw new Error(`leaf ${leaf.toString(16)}`);
      if (subject.hasUpper) {
        const upper = guest.read(subject.upperAt, subject.entrySize) & 0x20n;
        if (upper !== (should === undefined ? 0x20n : 0n)) throw new Error(`upper ${upper.toString(16)}`);
      }
      count++;
    }
    const nx = subject.noExecute ? 2 : 1;
    expect(count).toBe(5 * nx * (subject.hasUpper ? 5 * nx : 1) * 2 * 3 * 16);
  });
});
