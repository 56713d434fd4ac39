import type { Gpa } from '@introd/abi';
import { beforeAll, describe, expect, test } from 'vitest';
import { AT, setPrivilege, TinyGuest } from './tiny-guest.js';

/** The page under test has a slot of the PML4 of its own. */
const TARGET = 1n << 39n;
const PDPT = 0x5000;
const PD = 0x6000;
const PT = 0x7000;
const NX = 1n << 63n;
const SIZES = ['4 KiB', '2 MiB', '1 GiB'] as const;
type Size = (typeof SIZES)[number];
type Kind = 'read' | 'write' | 'execute';

interface Case {
  readonly size: Size;
  readonly leaf: bigint;
  readonly upper: bigint;
  readonly wp: boolean;
  readonly smep: boolean;
  readonly smap: boolean;
  readonly ac: boolean;
  readonly user: boolean;
  readonly kind: Kind;
}

/** Physical address of the page, and where its leaf entry lies. */
const PLACES = {
  '4 KiB': { frame: 0x4_0000n, leaf: PT },
  '2 MiB': { frame: 0x20_0000n, leaf: PD },
  '1 GiB': { frame: 0x4000_0000n, leaf: PDPT },
} as const;

/** What the SDM (vol. 3A, 4.6.1) says, written down without looking at the walker: the error code, or undefined. */
function expected(c: Case): number | undefined {
  const present = (c.leaf & 1n) !== 0n;
  const both = c.leaf & c.upper;
  const userPage = (both & 4n) !== 0n;
  const writable = (both & 2n) !== 0n;
  const noExecute = ((c.leaf | c.upper) & NX) !== 0n;
  const code = (c.kind === 'write' ? 2 : 0) | (c.user ? 4 : 0) | (c.kind === 'execute' ? 16 : 0);
  if (!present) return code;
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

function* cases(): Generator<Case> {
  const booleans = [false, true];
  for (const size of SIZES)
    for (const leafBits of [0n, 1n, 3n, 5n, 7n])
      for (const leafNx of [0n, NX])
        for (const upperBits of [1n, 3n, 5n, 7n])
          for (const upperNx of [0n, NX])
            for (const user of booleans)
              for (const kind of ['read', 'write', 'execute'] as const)
                for (const wp of booleans)
                  for (const smep of booleans)
                    for (const smap of booleans)
                      for (const ac of booleans)
                        yield {
                          size,
                          leaf: leafBits | leafNx,
                          upper: upperBits | upperNx,
                          user,
                          kind,
                          wp,
                          smep,
                          smap,
                          ac,
                        };
}

describe('page walk', () => {
  let guest: TinyGuest;

  beforeAll(() => {
    guest = new TinyGuest({
      memory: [
        { start: 0 as Gpa, size: 0x40_0000 },
        { start: 0x4000_0000 as Gpa, size: 0x1000 },
      ],
    });
    guest.code('mov al, [rbx]\nalign 16\nmov [rbx], al');
    guest.code('mov al, [rbx]\nalign 16\nmov [rbx], al', AT.userCode);
    for (const { frame } of Object.values(PLACES)) guest.write(Number(frame), Uint8Array.of(0x90, 0x90));
  });

  /** Lets one access happen; returns the error code of its page fault, or undefined. */
  function access(c: Case): number | undefined {
    const large = c.size === '4 KiB' ? 0n : 0x80n;
    const { frame, leaf } = PLACES[c.size];
    guest.write64(AT.pml4 + 8, BigInt(PDPT) | c.upper);
    guest.write64(PDPT, BigInt(PD) | 7n);
    guest.write64(PD, BigInt(PT) | 7n);
    guest.write64(leaf, frame | c.leaf | large);
    const record = guest.machine.vcpu(0);
    setPrivilege(record, c.user ? 3 : 0);
    record.set('cr0', c.wp ? 0x8001_0033n : 0x8000_0033n);
    record.set('cr4', 0x6a0n | (c.smep ? 1n << 20n : 0n) | (c.smap ? 1n << 21n : 0n));
    record.set('rflags', c.ac ? 0x4_0002n : 2n);
    record.set('rsp', BigInt(c.user ? AT.userStack : AT.stack));
    record.set('rbx', TARGET);
    const code = BigInt(c.user ? AT.userCode : AT.code);
    record.set('rip', c.kind === 'execute' ? TARGET : c.kind === 'read' ? code : code + 16n);
    guest.machine.run(1);
    if (record.rip !== BigInt(AT.stubs + 14 * 16)) return undefined;
    expect(record.get('cr2')).toBe(TARGET);
    return Number(guest.read64(Number(record.get('rsp'))));
  }

  test('grants and refuses as the SDM says, for every combination of rights and page sizes', () => {
    let count = 0;
    for (const c of cases()) {
      const should = expected(c);
      const did = access(c);
      if (did !== should)
        throw new Error(`${JSON.stringify(c, (_, v) => (typeof v === 'bigint' ? hex(v) : v))}: ${did}, not ${should}`);
      const leafEntry = guest.read64(PLACES[c.size].leaf);
      const bits = should === undefined ? (c.kind === 'write' ? 0x60n : 0x20n) : 0n;
      if ((leafEntry & 0x60n) !== bits) throw new Error(`${c.size} ${c.kind}: leaf entry ${hex(leafEntry)}`);
      const top = guest.read64(AT.pml4 + 8) & 0x20n;
      if (top !== (should === undefined ? 0x20n : 0n)) throw new Error(`${c.size} ${c.kind}: top entry`);
      count++;
    }
    expect(count).toBe(23_040);
  });

  const allowed = { upper: 7n, wp: true, smep: false, smap: false, ac: false, user: false, kind: 'read' } as const;

  test.each([
    ['2 MiB', 1n << 13n],
    ['2 MiB', 1n << 20n],
    ['1 GiB', 1n << 13n],
    ['1 GiB', 1n << 29n],
  ] as const)('a reserved bit in the entry of a page of %s faults with RSVD', (size, bit) => {
    expect(access({ ...allowed, size, leaf: 3n })).toBeUndefined();
    expect(access({ ...allowed, size, leaf: 3n | bit })).toBe(9);
  });

  test('NX is a reserved bit while EFER.NXE is off', () => {
    const record = guest.machine.vcpu(0);
    record.set('efer', 0x501n);
    try {
      expect(access({ ...allowed, size: '4 KiB', leaf: 3n | NX })).toBe(9);
      expect(access({ ...allowed, size: '4 KiB', leaf: 3n })).toBeUndefined();
    } finally {
      record.set('efer', 0xd01n);
    }
  });

  test('an address without RAM reads as ones and keeps nothing', () => {
    guest.code('mov rax, [rbx]\nmov qword ptr [rbx], 0\nmov rcx, [rbx]\nout 0xf4, al');
    guest.write64(AT.pml4 + 8, BigInt(PDPT) | 7n);
    guest.write64(PDPT, BigInt(PD) | 7n);
    guest.write64(PD, BigInt(PT) | 7n);
    guest.write64(PT, (1n << 51n) | 3n);
    const record = guest.machine.vcpu(0);
    guest.enter(0, BigInt(AT.code));
    record.set('rbx', TARGET);
    guest.machine.run(10);
    expect([record.get('rax'), record.get('rcx')]).toEqual([2n ** 64n - 1n, 2n ** 64n - 1n]);
  });
});

function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}

describe('translations', () => {
  test('a stale translation goes with INVLPG, a CR3 load and a flush by the host, and a fault re-walks', () => {
    for (const flush of ['invlpg [rbx]', 'mov rdx, cr3\nmov cr3, rdx']) {
      const guest = new TinyGuest();
      guest.code(`
        mov rbx, 0x30000
        mov rcx, 0x4180
        mov al, [rbx]
        mov rdx, 0x31003
        mov [rcx], rdx
        ${flush}
        mov ah, [rbx]
        out 0xf4, al`);
      guest.write(AT.data, Uint8Array.of(1));
      guest.write(AT.data + 0x1000, Uint8Array.of(2));
      guest.machine.run(20);
      expect(guest.machine.vcpu(0).get('rax') & 0xffffn).toBe(0x201n);
    }
  });

  test('POPF that changes AC opens and closes SMAP at once, also for translations already used', () => {
    const guest = new TinyGuest();
    guest.gate(14, BigInt(AT.stubs + 14 * 16), { ist: 1 });
    guest.code(`
      mov rax, cr4
      bts rax, 21
      mov cr4, rax
      mov rbx, 0x19000
      push 0x40002
      popfq
      mov cl, [rbx]
      push 2
      popfq
      closed: mov cl, [rbx]
      out 0xf4, al`);
    guest.machine.run(30);
    expect(guest.machine.powerOffCode).toBe(14);
    expect(guest.read64(AT.istStack - 40)).toBe(guest.label('closed'));
  });

  test('a write across two pages writes nothing when the second is missing', () => {
    const guest = new TinyGuest();
    guest.map(0x31, 0n);
    guest.code('mov rbx, 0x30ffc\nmov rax, 0x1122334455667788\nmov [rbx], rax');
    guest.machine.run(10);
    expect(guest.machine.powerOffCode).toBe(14);
    expect(guest.machine.vcpu(0).get('cr2')).toBe(0x3_1000n);
    expect(guest.read64(AT.data + 0xff8)).toBe(0n);
  });

  test('code that is written is decoded anew, also across pages and through another address', () => {
    const guest = new TinyGuest();
    // The patched instruction crosses from page 0x10 into 0x11; its immediate lies in page 0x11, mapped at 0x31 too.
    guest.map(0x31, 0x1_1003n);
    guest.code('mov rbx, 0x31000\nxor ecx, ecx\nmov rdx, 0x10fff\njmp rdx');
    guest.code(
      'again: mov eax, 7\nadd ecx, eax\nmov byte ptr [rbx], 9\ncmp ecx, 16\njb again\nmov eax, ecx\nout 0xf4, al',
      0x1_0fff,
    );
    guest.machine.run(40);
    expect(guest.machine.powerOffCode).toBe(16);
  });

  test('a non-canonical address is #GP, and #SS through the stack pointer', () => {
    for (const [text, vector] of [
      ['mov rbx, 0x800000000000\nmov al, [rbx]', 13],
      ['mov rsp, 0x900000000000\npush rax', 12],
      ['mov rbx, 0x800000000000\njmp rbx', 13],
    ] as const) {
      const guest = new TinyGuest();
      guest.gate(vector, BigInt(AT.stubs + vector * 16), { ist: 1 });
      guest.code(text).machine.run(10);
      expect(guest.machine.powerOffCode).toBe(vector);
    }
  });
});
