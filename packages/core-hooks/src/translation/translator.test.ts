import { type Cr3, type Gfn, type Gpa, type Gva, gpaOf } from '@introd/abi';
import { SyntheticPort } from '@introd/glue/testing';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { CODE, kernel, PML4 } from '../../test/guest-layout.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';
import { Engine, type Translation } from '../index.js';

const scale = inject('scale');

/** A second walker, as plain as SDM vol. 3A, 4.5 can be written: recursion over 64-bit integers. */
function naive(
  read: (gpa: bigint) => bigint | undefined,
  table: bigint,
  va: bigint,
  level: number,
  trace: { gpa: number; entry: bigint }[],
): { status: string; gpa: bigint; pageSize: bigint } {
  const shift = 12n + 9n * BigInt(level - 1);
  const at = table + ((va >> shift) % 512n) * 8n;
  const entry = read(at);
  if (entry === undefined) {
    return { status: 'no-memory', gpa: 0n, pageSize: 0n };
  }
  trace.push({ gpa: Number(at), entry });
  if (entry % 2n === 0n) {
    return { status: level === 1 ? 'not-present' : 'no-mapping', gpa: 0n, pageSize: level === 1 ? 4096n : 0n };
  }
  const address = (entry % (1n << 52n)) & ~0xfffn;
  const large = (entry & 0x80n) !== 0n && (level === 2 || level === 3);
  if (level === 1 || large) {
    const pageSize = 1n << shift;
    return { status: 'ok', gpa: address - (address % pageSize) + (va % pageSize), pageSize };
  }
  return naive(read, address, va, level - 1, trace);
}

describe('Translator', () => {
  it('agrees with a second, naive walker over random tables', () => {
    const port = new SyntheticPort({ memory: [{ start: 0 as Gpa, size: 16 * 4096 }] });
    const engine = new Engine(port);
    const view = new DataView(new ArrayBuffer(8));
    const read = (gpa: bigint): bigint | undefined => engine.memory.read64(Number(gpa) as Gpa);
    // Entries that lead to the 16 tables at hand, or out of memory; with every flag at random.
    const entry = fc
      .tuple(
        fc.integer({ min: 0, max: 17 }),
        fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
        fc.integer({ min: 0, max: 9 }),
      )
      .map(([frame, noise, kind]) => {
        const flags = (noise & 0xfff0_0000_0000_0f7fn) | (kind === 0 ? 0n : 1n) | (kind === 1 ? 0x80n : 0n);
        const far = kind === 2 ? noise & 0x000f_ffff_0000_0000n : 0n;
        return flags | far | (BigInt(frame) << 12n) | (kind === 1 ? noise & 0x3fff_e000n : 0n);
      });
    const seen = new Set<string>();
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 15 }), fc.integer({ min: 0, max: 3 }), entry), { maxLength: 64 }),
        fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 4, maxLength: 4 }),
        fc.integer({ min: 0, max: 4095 }),
        fc.integer({ min: 0, max: 15 }),
        fc.bigInt({ min: 0n, max: 0xfffn }),
        (writes, indexes, offset, root, low) => {
          // Only four indexes are used, so that walks meet what was written.
          const index = [0, 1, 255, 511];
          for (const [frame, at, value] of writes) {
            view.setBigUint64(0, value, true);
            port.writePhysical((gpaOf(frame as Gfn) + index[at]! * 8) as Gpa, new Uint8Array(view.buffer));
          }
          let va = BigInt(offset);
          for (const [level, choice] of indexes.entries()) {
            va |= BigInt(index[choice]!) << (12n + 9n * BigInt(level));
          }
          va = BigInt.asUintN(64, BigInt.asIntN(48, va));
          const cr3 = ((BigInt(root) << 12n) | low | (1n << 63n)) as Cr3;
          const trace: { gpa: number; entry: bigint }[] = [];
          const expected = naive(read, BigInt(root) << 12n, va, 4, trace);
          const actual = engine.translator.translate(cr3, va as Gva);
          const present = trace.filter((one) => one.entry % 2n === 1n);
          const translation: Translation = {
            status: expected.status as Translation['status'],
            gpa: Number(expected.gpa) as Gpa,
            pageSize: Number(expected.pageSize),
            leaf: expected.status === 'no-memory' ? 0n : trace.at(-1)!.entry,
            user: present.every((one) => (one.entry & 4n) !== 0n),
            writable: present.every((one) => (one.entry & 2n) !== 0n),
            executable: present.every((one) => one.entry >> 63n === 0n),
            trace: trace as unknown as Translation['trace'],
          };
          expect(actual).toEqual(translation);
          seen.add(`${actual.status} ${actual.pageSize}`);
        },
      ),
      { numRuns: 3000 * scale, seed: 11 },
    );
    expect([...seen].toSorted()).toEqual([
      'no-mapping 0',
      'no-memory 0',
      'not-present 4096',
      'ok 1073741824',
      'ok 2097152',
      'ok 4096',
    ]);
  });
});

describe('a remembered walk', () => {
  it('is taken again as soon as an entry of any level has changed, and serves again when it is back', () => {
    const guest = new SyntheticGuest();
    const { translator } = guest.engine;
    const other = kernel(CODE + 0x5000);
    const entries = translator.translate(PML4n, kernel(CODE)).trace;
    expect(entries).toHaveLength(4);
    for (const { gpa, entry } of entries) {
      expect(translator.translate(PML4n, kernel(CODE))).toMatchObject({ status: 'ok', gpa: CODE, user: true });
      guest.put64(gpa, entry & ~1n);
      expect(translator.translate(PML4n, kernel(CODE)).status).not.toBe('ok');
      guest.put64(gpa, entry & ~4n);
      expect(translator.translate(PML4n, kernel(CODE))).toMatchObject({ status: 'ok', gpa: CODE, user: false });
      guest.put64(gpa, entry | (1n << 63n));
      expect(translator.translate(PML4n, kernel(CODE))).toMatchObject({ status: 'ok', gpa: CODE, executable: false });
      guest.put64(gpa, entry);
    }
    guest.put64(entries[3]!.gpa, 0x7000n | 3n);
    expect(translator.translate(PML4n, (kernel(CODE) + 0x123n) as Gva).gpa).toBe(0x7123);
    expect(translator.translate(PML4n, other).gpa).toBe(CODE + 0x5000);
  });

  it('of another address space or another half of the address is another walk', () => {
    const guest = new SyntheticGuest();
    const { translator } = guest.engine;
    // A root that maps the same addresses one page further.
    guest.put64(0x8_0000 + 256 * 8, 0x8_1000n | 7n);
    guest.put64(0x8_1000, 0x8_2000n | 7n);
    guest.put64(0x8_2000, 0x8_3000n | 7n);
    guest.put64(0x8_3000 + (CODE >> 12) * 8, BigInt(CODE + 4096) | 7n);
    for (let round = 0; round < 3; round++) {
      expect(translator.translate(PML4n, kernel(CODE)).gpa).toBe(CODE);
      expect(translator.translate(0x8_0000n as Cr3, kernel(CODE)).gpa).toBe(CODE + 4096);
      expect(translator.translate(0x8_0000n as Cr3, BigInt(CODE) as Gva).status).toBe('no-mapping');
    }
  });
});

describe('GuestMemory', () => {
  it('reads across pages as far as they are mapped', () => {
    const guest = new SyntheticGuest();
    const { memory } = guest.engine;
    const bytes = Uint8Array.from({ length: 3 * 4096 }, (_, at) => at % 251);
    expect(memory.writePhysical(CODE as Gpa, bytes)).toBe(true);
    const target = new Uint8Array(2 * 4096);
    expect(memory.readVirtual(PML4n, kernel(CODE + 100), target)).toEqual({ status: 'ok' });
    expect(Buffer.compare(target, bytes.subarray(100, 100 + target.length))).toBe(0);
    guest.put64(0x4000 + ((CODE >> 12) + 1) * 8, 0n);
    expect(memory.readVirtual(PML4n, kernel(CODE + 100), target)).toEqual({
      status: 'not-present',
      at: kernel(CODE + 4096),
      done: 3996,
    });
    expect(memory.readU64(PML4n, kernel(CODE + 4090))).toBeUndefined();
    expect(memory.readVirtual(PML4n, 0x4000_0000_0000n as Gva, target)).toMatchObject({
      status: 'no-mapping',
      done: 0,
    });
  });

  it('reads integers and text', () => {
    const guest = new SyntheticGuest();
    const { memory } = guest.engine;
    memory.writePhysical(CODE as Gpa, Buffer.from('PsActive\0\xff', 'latin1'));
    expect(memory.readU8(PML4n, kernel(CODE))).toBe(0x50);
    expect(memory.readU16(PML4n, kernel(CODE))).toBe(0x7350);
    expect(memory.readU32(PML4n, kernel(CODE + 1))).toBe(0x74634173);
    expect(memory.readU64(PML4n, kernel(CODE))).toBe(0x6576_6974_6341_7350n);
    expect(memory.readAscii(PML4n, kernel(CODE), 8)).toBe('PsActive');
    expect(memory.readAscii(PML4n, kernel(CODE), 7)).toBeUndefined();
    // The text ends before a page that is not there.
    guest.put64(0x4000 + ((CODE >> 12) + 1) * 8, 0n);
    memory.writePhysical((CODE + 4093) as Gpa, Buffer.from('ab\0'));
    expect(memory.readAscii(PML4n, kernel(CODE + 4093), 100)).toBe('ab');
  });

  it('does not touch what is not RAM', () => {
    const guest = new SyntheticGuest();
    const { memory } = guest.engine;
    const end = 16 * 1024 * 1024;
    expect(memory.readPhysical((end - 4) as Gpa, new Uint8Array(8))).toBe(false);
    expect(memory.writePhysical((end - 4) as Gpa, new Uint8Array(8))).toBe(false);
    expect(memory.read64(end as Gpa)).toBeUndefined();
    expect(memory.compareExchange64(end as Gpa, 0n, 1n)).toBeUndefined();
    expect(memory.compareExchange64((end - 8) as Gpa, 1n, 2n)).toBe(false);
    expect(memory.compareExchange64((end - 8) as Gpa, 0n, 0x8000_0000_0000_0001n)).toBe(true);
    expect(memory.read64((end - 8) as Gpa)).toBe(0x8000_0000_0000_0001n);
  });
});

const PML4n = BigInt(PML4) as Cr3;
