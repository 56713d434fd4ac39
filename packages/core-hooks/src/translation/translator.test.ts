import { Access, type Cr3, ExitCause, type Gfn, type Gpa, type Gva, gpaOf } from '@introd/abi';
import { SyntheticPort } from '@introd/glue/testing';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { CODE, DATA, kernel, PML4 } from '../../test/guest-layout.js';
import { bits, type Mode, naive, type Read, SHAPES } from '../../test/naive-walker.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';
import { Engine, type PagingMode } from '../index.js';

const scale = inject('scale');

/** Few frames and few indexes, so that random walks meet what random writes left. */
const FRAMES = 16;

/** An entry that leads to one of the frames, now and then out of memory or to a large page; every flag at random. */
const anyEntry = fc
  .tuple(fc.nat(FRAMES + 1), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), fc.nat(9))
  .map(([frame, noise, kind]) => {
    const flags = (noise & 0xfff0_0000_0000_0f7fn) | (kind === 0 ? 0n : 1n) | (kind === 1 ? 0x80n : 0n);
    const far = kind === 2 ? noise & 0x000f_ffff_0000_0000n : 0n;
    return flags | far | (BigInt(frame) << 12n) | (kind === 1 ? noise & 0x3fff_e000n : 0n);
  });

describe('Translator', () => {
  const seen: Record<Mode, string[]> = {
    '32-bit': ['no-mapping 0', 'no-memory 0', 'not-present 4096', 'ok 4096', 'ok 4194304'],
    pae: ['no-mapping 0', 'no-memory 0', 'not-present 4096', 'ok 2097152', 'ok 4096'],
    '4-level': ['no-mapping 0', 'no-memory 0', 'not-present 4096', 'ok 1073741824', 'ok 2097152', 'ok 4096'],
    '5-level': ['no-mapping 0', 'no-memory 0', 'not-present 4096', 'ok 1073741824', 'ok 2097152', 'ok 4096'],
  };
  for (const mode of Object.keys(SHAPES) as Mode[]) {
    it(`agrees with a second, naive walker over random tables: ${mode} [P1.1] [P1.2] [P1.3] [P1.4] [P1.5] [P1.6]${mode === 'pae' ? ' [P1.7]' : ''} [P1.10] [P1.11] [P1.14]`, () => {
      const port = new SyntheticPort({ memory: [{ start: 0 as Gpa, size: FRAMES * 4096 }] });
      const engine = new Engine(port);
      const view = new DataView(new ArrayBuffer(8));
      const { entry: entrySize, levels } = SHAPES[mode];
      const read: Read = (gpa, size) => {
        const bytes = new Uint8Array(8);
        return engine.memory.readPhysical(Number(gpa) as Gpa, bytes.subarray(0, size))
          ? new DataView(bytes.buffer).getBigUint64(0, true)
          : undefined;
      };
      const met = new Set<string>();
      const choices = [0, 1, 255, 511];
      fc.assert(
        fc.property(
          fc.array(fc.tuple(fc.nat(FRAMES - 1), fc.nat(3), fc.nat(127), anyEntry), { maxLength: 64 }),
          fc.array(fc.nat(3), { minLength: 5, maxLength: 5 }),
          fc.nat(4095),
          fc.nat(FRAMES - 1),
          fc.nat(127),
          fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
          (writes, indexes, offset, root, at, noise) => {
            for (const [frame, index, chunk, value] of writes) {
              // Half of the writes go to what may be a root of 32 bytes.
              const place = chunk % 2 === 0 ? choices[index]! * entrySize : chunk * 32 + index * 8;
              view.setBigUint64(0, value, true);
              port.writePhysical((gpaOf(frame as Gfn) + place) as Gpa, new Uint8Array(view.buffer, 0, entrySize));
            }
            let va = BigInt(offset);
            for (const [number, { low, high }] of levels.entries()) {
              va |= bits(BigInt(choices[indexes[number]!]!) << BigInt(low), low, high);
            }
            if (entrySize === 8 && mode !== 'pae') {
              va = BigInt.asUintN(64, BigInt.asIntN(mode === '4-level' ? 48 : 57, va));
            }
            // PCID and bit 63 do not count; without long mode, nothing above bit 31 does.
            const ignored = mode === 'pae' || mode === '32-bit' ? noise & ~0xffff_ffffn : 1n << 63n;
            const low = mode === 'pae' ? (BigInt(at) << 5n) | (noise & 0x1fn) : noise & 0xfffn;
            const cr3 = ((BigInt(root) << 12n) | low | ignored) as Cr3;
            const actual = engine.translator.translate(cr3, va as Gva, mode);
            expect(actual).toEqual(naive(read, mode, cr3, va));
            expect(engine.translator.translate(cr3, va as Gva, mode)).toEqual(actual);
            met.add(`${actual.status} ${actual.pageSize}`);
          },
        ),
        { numRuns: 1500 * scale, seed: 11 },
      );
      expect([...met].toSorted()).toEqual(seen[mode]);
    });
  }

  it('finds a large page above 4 GiB by PSE-36 [P1.1]', () => {
    const port = new SyntheticPort();
    const { translator } = new Engine(port);
    // Bits 13 to 20 are address bits 32 to 39; bit 12 is PAT.
    put(port, 0x1000 + 4 * 3, (0x12 << 13) | (0x1400_0000 | 0x1083), 4);
    expect(translator.translate(0x1000n as Cr3, 0xc0_1234n as Gva, '32-bit')).toMatchObject({
      status: 'ok',
      gpa: 0x12_1400_1234,
      pageSize: 0x40_0000,
      executable: true,
    });
  });

  it('leaves addresses alone without paging, unless a mode is forced [P1.8] [P1.9]', () => {
    const guest = new SyntheticGuest();
    const { translator } = guest.engine;
    expect(translator.translate(PML4n, 0x1_2345n as Gva, 'none')).toEqual({
      status: 'ok',
      gpa: 0x1_2345,
      pageSize: 0,
      leaf: 0n,
      user: true,
      writable: true,
      executable: true,
      trace: [],
    });
    expect(translator.translate(PML4n, kernel(CODE), 'none').status).toBe('no-memory');
    expect(translator.translate(PML4n, kernel(CODE), '4-level').gpa).toBe(CODE);
    expect(() => translator.translate(PML4n, kernel(CODE), '6-level' as PagingMode)).toThrow('no paging mode 6-level');
  });

  it('goes by the mode of the VCPU for its exits, and by that of the system for memory [P1.8] [P1.9]', () => {
    const guest = new SyntheticGuest();
    const { engine, vcpu } = guest;
    const texts: unknown[] = [];
    // mov [rbx], eax: without long mode the same as mov [ebx], eax
    guest.code('89 03');
    engine.hooks.page.set({
      gpa: DATA as Gpa,
      length: 8,
      access: Access.WRITE,
      callback: (event) =>
        texts.push(engine.pagingMode(event.vcpu), engine.pagingMode(), engine.memory.readU8(PML4n, kernel(CODE))),
    });
    guest.vcpu.set('rbx', kernel(DATA));
    guest.settle(DATA);
    expect(texts).toEqual(['4-level', '4-level', 0x89]);
    texts.length = 0;
    vcpu.set('cr4', 0x1020n);
    guest.violate(DATA, Access.WRITE, ExitCause.EVENT_DELIVERY);
    expect(texts).toEqual(['5-level', '5-level', undefined]);
    vcpu.set('efer', 0n);
    vcpu.set('cr0', 0x11n);
    engine.addressSpaces = { ...engine.addressSpaces, pagingMode: '4-level' };
    texts.length = 0;
    guest.violate(DATA, Access.WRITE, ExitCause.EVENT_DELIVERY);
    expect(texts).toEqual(['none', '4-level', 0x89]);
    vcpu.set('cr0', 0x8000_0011n);
    expect(engine.pagingMode(vcpu)).toBe('pae');
    vcpu.set('cr4', 0n);
    expect(engine.pagingMode(vcpu)).toBe('32-bit');
  });

  it('resolves a self-map address to its own entry [P1.13]', () => {
    const guest = new SyntheticGuest();
    guest.put64(PML4 + 0x1ed * 8, BigInt(PML4) | 3n);
    const self = BigInt.asUintN(64, BigInt.asIntN(48, (0x1edn * 0x0080_4020_1000n) | (0x1edn << 3n))) as Gva;
    expect(guest.engine.translator.translate(PML4n, self).gpa).toBe(PML4 + 0x1ed * 8);
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

/** Writes a little-endian number. */
function put(port: SyntheticPort, gpa: number, value: number, size: number): void {
  const bytes = Buffer.alloc(size);
  bytes.writeUIntLE(value, 0, size);
  port.writePhysical(gpa as Gpa, bytes);
}
