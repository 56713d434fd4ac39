import { Access, type Gfn, type Gpa, gfn, gfnOf, gpa, PAGE_SIZE } from '@introd/abi';
import { CAPABILITY_OPERATIONS, CAPABILITY_PROPERTIES } from '../../capability-members.js';
import { type Capability, supports } from '../../port.js';
import type { ConformanceCase } from './case.js';
import { CODE, DATA, HIGH_RAM, HOLE, LOW_RAM } from './layout.js';
import { OFFSET, WRITTEN } from './programs.js';
import { check, equal, throws } from './session.js';

const END_OF_LOW = gpa(LOW_RAM.start + LOW_RAM.size);

function pattern(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 37 + 11) & 0xff);
}

function sameBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  expected.forEach((byte, i) => {
    equal(actual[i], byte, `${what}, byte ${i}`);
  });
}

/** Promises about capabilities, memory and rights that hold while nothing runs. */
export const memoryCases: readonly ConformanceCase[] = [
  {
    name: 'has the members of each capability it names, and no others',
    needs: [],
    run({ port }) {
      for (const capability of Object.keys(CAPABILITY_OPERATIONS) as Capability[]) {
        const has = port.capabilities.has(capability);
        for (const name of CAPABILITY_OPERATIONS[capability]) {
          equal(typeof port[name] === 'function', has, `${name} as a member of ${capability}`);
        }
        for (const name of CAPABILITY_PROPERTIES[capability]) {
          equal(name in port, has, `${name} as a member of ${capability}`);
        }
      }
    },
  },
  {
    name: "names the guest's RAM, ascending, page aligned and without overlaps",
    needs: ['memory'],
    run({ port }) {
      let end = 0;
      for (const region of port.memoryRegions) {
        check(region.start >= end && region.size > 0, 'regions must ascend without overlap');
        check(region.start % PAGE_SIZE === 0 && region.size % PAGE_SIZE === 0, 'regions must be page aligned');
        end = region.start + region.size;
      }
      const isRam = (address: Gpa) =>
        port.memoryRegions.some((region) => address >= region.start && address < region.start + region.size);
      check(isRam(CODE) && isRam(DATA), 'the RAM of the conformance guest must be listed');
      check(!isRam(HOLE), 'the hole between its regions must not be listed');
    },
  },
  {
    name: 'reads what the image holds',
    needs: ['memory'],
    run({ port, guest }) {
      for (const part of guest.image) {
        const bytes = new Uint8Array(part.bytes.length);
        check(port.readPhysical(part.gpa, bytes), 'RAM must be readable');
        sameBytes(bytes, part.bytes, 'image');
      }
    },
  },
  {
    name: 'reads back what was written, across pages too',
    needs: ['memory', 'write'],
    run({ port }) {
      for (const [address, length] of [
        [DATA, 1],
        [DATA + 5, 8],
        [DATA + PAGE_SIZE - 3, 7],
        [DATA + 100, 2 * PAGE_SIZE],
        [HIGH_RAM.start + HIGH_RAM.size - 16, 16],
      ] as const) {
        const bytes = pattern(length);
        equal(port.writePhysical(gpa(address), bytes), true, 'writePhysical of RAM');
        const read = new Uint8Array(length);
        equal(port.readPhysical(gpa(address), read), true, 'readPhysical of RAM');
        sameBytes(read, bytes, 'memory');
      }
    },
  },
  {
    name: 'refuses a read that is not wholly RAM',
    needs: ['memory'],
    run({ port }) {
      equal(port.readPhysical(HOLE, new Uint8Array(1)), false, 'a read of the hole');
      equal(port.readPhysical(gpa(END_OF_LOW - 4), new Uint8Array(8)), false, 'a read out of RAM');
      equal(port.readPhysical(gpa(HIGH_RAM.start - 4), new Uint8Array(8)), false, 'a read into RAM');
      equal(port.readPhysical(gpa(2 ** 52 - 8), new Uint8Array(16)), false, 'a read past the last address');
      equal(port.readPhysical(gpa(END_OF_LOW - 4), new Uint8Array(4)), true, 'a read up to the end of RAM');
    },
  },
  {
    name: 'refuses a write that is not wholly RAM, and writes nothing of it',
    needs: ['memory', 'write'],
    run({ port }) {
      equal(port.writePhysical(HOLE, pattern(1)), false, 'a write to the hole');
      equal(port.writePhysical(gpa(END_OF_LOW - 4), pattern(8)), false, 'a write out of RAM');
      const end = new Uint8Array(4);
      port.readPhysical(gpa(END_OF_LOW - 4), end);
      sameBytes(end, new Uint8Array(4), 'the end of RAM');
    },
  },
  {
    name: 'exchanges values of each size when memory holds the expected one, and only then',
    needs: ['memory', 'write'],
    run({ port }) {
      for (const size of [1, 2, 4, 8] as const) {
        const at = gpa(DATA + 32);
        const before = pattern(24);
        port.writePhysical(gpa(at - 8), before);
        const held = new DataView(before.buffer);
        const low = size === 1 ? held.getUint8(8) : size === 2 ? held.getUint16(8, true) : held.getUint32(8, true);
        const high = size === 8 ? held.getUint32(12, true) : 0;
        const now = new Uint8Array(24);
        equal(port.compareExchange(at, size, low ^ 1, high, 0, 0), false, `exchange of ${size} bytes, wrong low half`);
        if (size === 8) {
          equal(port.compareExchange(at, size, low, high ^ 0x8000_0000, 0, 0), false, 'exchange, wrong high half');
        }
        port.readPhysical(gpa(at - 8), now);
        sameBytes(now, before, `memory after a failed exchange of ${size} bytes`);
        equal(port.compareExchange(at, size, low, high, 0xf1f2_f3f4, 0xf5f6_f7f8), true, `exchange of ${size} bytes`);
        port.readPhysical(gpa(at - 8), now);
        before.set([0xf4, 0xf3, 0xf2, 0xf1, 0xf8, 0xf7, 0xf6, 0xf5].slice(0, size), 8);
        sameBytes(now, before, `memory after an exchange of ${size} bytes`);
      }
      throws('ERR_GLUE_NO_MEMORY', () => port.compareExchange(HOLE, 8, 0, 0, 0, 0), 'an exchange in the hole');
    },
  },
  {
    name: 'refuses a compare-exchange of another size or misaligned, and changes nothing',
    needs: ['memory', 'write'],
    run({ port }) {
      const zeros = new Uint8Array(16);
      port.writePhysical(DATA, zeros);
      const wrong: readonly (readonly [number, number])[] = [
        [0, 0],
        [0, 3],
        [0, 16],
        [0, -4],
        [0, 1.5],
        [0, Number.NaN],
        [1, 2],
        [2, 4],
        [4, 8],
        [0.5, 1],
      ];
      for (const [offset, size] of wrong) {
        const exchange = () => port.compareExchange((DATA + offset) as Gpa, size as 1, 0, 0, 1, 1);
        throws('ERR_GLUE_BAD_EXCHANGE', exchange, `an exchange of ${size} bytes at ${offset}`);
      }
      const now = new Uint8Array(16);
      port.readPhysical(DATA, now);
      sameBytes(now, zeros, 'memory after refused exchanges');
    },
  },
  {
    name: 'has no RAM between two bytes or two frames',
    needs: ['memory'],
    run({ port }) {
      const between = (DATA + 0.5) as Gpa;
      const frame = (gfnOf(DATA) + 0.5) as Gfn;
      equal(port.readPhysical(between, new Uint8Array(1)), false, 'a read between two bytes');
      if (supports(port, 'write')) {
        equal(port.writePhysical(between, new Uint8Array(1)), false, 'a write between two bytes');
      }
      if (supports(port, 'map')) equal(port.mapPage(frame), undefined, 'a frame between two frames');
      if (supports(port, 'page-access')) {
        throws('ERR_GLUE_NO_MEMORY', () => port.setPageAccess(frame, Access.READ), 'rights between two frames');
        equal(port.getPageAccess(gfnOf(DATA)), Access.ALL, 'rights after a refusal');
      }
    },
  },
  {
    name: 'maps a frame that shows what is written, and no frame where there is no RAM',
    needs: ['memory', 'write', 'map'],
    run({ port }) {
      const page = port.mapPage(gfnOf(DATA));
      check(page !== undefined, 'a frame of RAM must be mapped');
      equal(page.length, PAGE_SIZE, 'length of a mapped page');
      equal(page.byteOffset % 8, 0, 'alignment of a mapped page');
      port.writePhysical(gpa(DATA + 7), Uint8Array.of(0xa5));
      equal(page[7], 0xa5, 'a byte of the mapped page');
      equal(port.mapPage(gfnOf(HOLE)), undefined, 'a frame of the hole');
    },
  },
  {
    name: 'shows the writes of the running guest in a mapped frame',
    needs: ['memory', 'map', 'exits'],
    program: 'write',
    run(session) {
      const page = session.port.mapPage(gfnOf(DATA));
      check(page !== undefined, 'a frame of RAM must be mapped');
      session.runToPlainEnd();
      equal(new DataView(page.buffer, page.byteOffset).getBigUint64(OFFSET, true), WRITTEN, 'the guest-written value');
    },
  },
  {
    name: 'gives every frame all rights until told otherwise, and keeps what it is told per frame',
    needs: ['page-access'],
    run({ port }) {
      const frames = [0, 1, 2, 3, 4, 5].map((i) => gfn(gfnOf(DATA) + i));
      const rights = [
        Access.NONE,
        Access.READ,
        Access.READ | Access.WRITE,
        Access.READ | Access.EXECUTE,
        Access.EXECUTE,
        Access.ALL,
      ];
      for (const frame of frames) equal(port.getPageAccess(frame), Access.ALL, 'rights at the beginning');
      frames.forEach((frame, i) => {
        port.setPageAccess(frame, rights[i]!);
      });
      port.flushPageAccess();
      frames.forEach((frame, i) => {
        equal(port.getPageAccess(frame), rights[i]!, `rights of frame ${i}`);
      });
    },
  },
  {
    name: 'refuses rights that no second-level table can express, and frames without RAM',
    needs: ['page-access'],
    run({ port }) {
      const frame = gfnOf(DATA);
      for (const access of [Access.WRITE, Access.WRITE | Access.EXECUTE]) {
        throws('ERR_GLUE_ACCESS_NOT_EXPRESSIBLE', () => port.setPageAccess(frame, access), 'write without read');
      }
      for (const access of [-1, 8, 99, 1.5, Number.NaN]) {
        throws('ERR_GLUE_BAD_ACCESS', () => port.setPageAccess(frame, access), `the rights ${access}`);
      }
      equal(port.getPageAccess(frame), Access.ALL, 'rights after a refusal');
      throws('ERR_GLUE_NO_MEMORY', () => port.setPageAccess(gfnOf(HOLE), Access.READ), 'rights of the hole');
    },
  },
];
