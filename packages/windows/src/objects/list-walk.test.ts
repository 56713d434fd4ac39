import { type Gva, gva } from '@introd/abi';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import type { VirtualMemory } from '../virtual-memory.js';
import { listProblemText, walkList } from './list-walk.js';

const scale = inject('scale');
const node = (index: number) => gva(0xffff_a800_0000_0000n + BigInt(index) * 0x40n);

/** Memory in which node i leads to next(i). */
class Links implements VirtualMemory {
  reads = 0;
  constructor(private readonly next: (index: number) => bigint | undefined) {}
  read(address: Gva, target: Uint8Array): boolean {
    this.reads += 1;
    const value = this.next(Number((address - node(0)) / 0x40n));
    if (value === undefined) return false;
    new DataView(target.buffer, target.byteOffset).setBigUint64(0, BigInt.asUintN(64, value), true);
    return true;
  }
}

describe('a list', () => {
  it.each([0, 1, 2, 5, 100])('of %i entries is walked once around', (count) => {
    const links = new Links((index) => node((index + 1) % (count + 1)));
    const walk = walkList(links, node(0), 65535);
    expect(walk).toEqual({ status: 'ok', entries: Array.from({ length: count }, (_, i) => node(i + 1)) });
    expect(links.reads).toBe(count + 1);
  });

  it('may be as long as the limit, and no longer', () => {
    const ring = (count: number) => new Links((index) => node((index + 1) % (count + 1)));
    expect(walkList(ring(50), node(0), 50).status).toBe('ok');
    expect(walkList(ring(51), node(0), 50)).toMatchObject({ status: 'too-long', count: 50 });
  });

  it('that never ends is given up at the limit', () => {
    expect(walkList(new Links((index) => node(index + 1)), node(0), 1000)).toMatchObject({
      status: 'too-long',
      count: 1000,
    });
  });

  it.each<[string, string, bigint | undefined]>([
    ['unreadable', 'leads to memory that is not there', undefined],
    ['broken-link', 'leads out of kernel memory', 0n],
    ['broken-link', 'leads out of kernel memory', 0x7fff_0000_0000n],
    ['broken-link', 'leads out of kernel memory', 0xffff_0000_0000_0000n],
    ['broken-link', 'leads out of kernel memory', node(1) + 4n],
    ['cyclic', 'is cyclic', node(2)],
    ['cyclic', 'is cyclic', node(5)],
  ])('that is %s at an entry says so: %s', (status, text, next) => {
    const walk = walkList(new Links((index) => (index === 5 ? next : node(index + 1))), node(0), 65535);
    expect(walk.status).toBe(status);
    if (walk.status !== 'ok') expect(listProblemText('list of things', walk)).toContain(`the list of things ${text}`);
  });

  it('is found cyclic within a few rounds of the cycle, wherever it begins and however long it is', () => {
    fc.assert(
      fc.property(fc.nat(200), fc.integer({ min: 1, max: 200 }), (tail, cycle) => {
        const links = new Links((index) => node(index === tail + cycle ? tail + 1 : index + 1));
        expect(walkList(links, node(0), 65535).status).toBe('cyclic');
        expect(links.reads).toBeLessThanOrEqual(4 * (tail + cycle) + 4);
      }),
      { numRuns: 200 * scale },
    );
  });

  it('ends within its limit whatever its memory holds', () => {
    fc.assert(
      fc.property(
        fc.array(fc.option(fc.nat(40)), { minLength: 1, maxLength: 40 }),
        fc.integer({ min: 1, max: 60 }),
        (next, limit) => {
          const links = new Links((index) => {
            const to = next[index % next.length];
            return to === null || to === undefined ? undefined : node(to);
          });
          const walk = walkList(links, node(0), limit);
          expect(links.reads).toBeLessThanOrEqual(limit + 1);
          if (walk.status === 'ok') expect(new Set(walk.entries).size).toBe(walk.entries.length);
        },
      ),
      { numRuns: 500 * scale },
    );
  });
});
