import { Engine } from '@introd/core-hooks';
import { assert } from '../operation.mjs';
import { DATA, KERNEL, kernel, MAPPED, PML4, put64, syntheticGuest } from '../synthetic-guest.mjs';

const OK = 0;
const KERNEL_HIGH = Number(KERNEL >> 32n);

function translate(op, low, expected) {
  const { translator } = new Engine(syntheticGuest().port);
  return {
    group: 'memory',
    op,
    run(count) {
      for (let i = 0; i < count; i++) {
        if (translator.walk(PML4, 0, low, KERNEL_HIGH) !== OK || translator.gpa !== expected) {
          assert(false, `0x${low.toString(16)} must lead to 0x${expected.toString(16)}`);
        }
      }
    },
  };
}

/**
 * Walks address spaces in turn, so many that no table of one is still known when its turn comes again: four tables each, and
 * the engine keeps 8,192 pages.
 */
function translateCold() {
  const spaces = 3000;
  const first = 0x10_0000;
  const { port } = syntheticGuest(64);
  for (let space = 0; space < spaces; space++) {
    const root = first + space * 4 * 4096;
    for (let level = 0; level < 3; level++) put64(port, root + level * 4096, BigInt(root + (level + 1) * 4096) | 3n);
    put64(port, root + 3 * 4096, BigInt(DATA) | 3n);
  }
  const { translator } = new Engine(port);
  let space = 0;
  return {
    group: 'memory',
    op: 'translate VA, cold GPA cache',
    run(count) {
      for (let i = 0; i < count; i++) {
        if (translator.walk(first + space * 4 * 4096, 0, 0x123, 0) !== OK || translator.gpa !== DATA + 0x123) {
          assert(false, `the address must be mapped in space ${space}`);
        }
        space = (space + 1) % spaces;
      }
    },
  };
}

function read(op, length) {
  const { port } = syntheticGuest();
  const { memory } = new Engine(port);
  const bytes = Uint8Array.from({ length }, (_, i) => (i * 7 + 1) & 0xff);
  port.writePhysical(DATA, bytes);
  const target = new Uint8Array(length);
  const cr3 = BigInt(PML4);
  const address = kernel(DATA);
  return {
    group: 'memory',
    op,
    run(count) {
      for (let i = 0; i < count; i++) {
        target[0] = 0;
        target[length - 1] = 0;
        if (memory.readVirtual(cr3, address, target).status !== 'ok') assert(false, 'the read must succeed');
        if (target[0] !== bytes[0] || target[length - 1] !== bytes[length - 1])
          assert(false, 'the bytes must be those of memory');
      }
      assert(Buffer.compare(target, bytes) === 0, 'all bytes must be those of memory');
    },
  };
}

/** Translation and reads of guest virtual addresses. */
export function operations() {
  return [
    translate('translate VA, 4 KiB page, cached tables', DATA + 0x123, DATA + 0x123),
    translate('translate VA, 2 MiB page', MAPPED + 0x1_2345, MAPPED + 0x1_2345),
    translateCold(),
    read('read 8 guest bytes by VA', 8),
    read('read 4096 guest bytes by VA', 4096),
  ];
}
