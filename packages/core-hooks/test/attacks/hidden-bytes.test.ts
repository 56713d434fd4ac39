import type { Cr3 } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { DATA, kernel, PML4 } from '../guest-layout.js';
import { code, get64 } from '../sim-guest.js';
import { attackGuest } from './attack-guest.js';

const CR3 = BigInt(PML4) as Cr3;
/** Where in the region the word is that is read. */
const WORD = 0x20;
const REAL = 0xcccc_cccc_cccc_ccccn;

describe('a read of hidden bytes', () => {
  for (const { name, text, sees } of [
    { name: 'from outside of them sees the originals', text: `mov rax, [rbx+${WORD}]`, sees: 0x1111_1111_1111_1111n },
    {
      name: 'by the same instruction inside of them passes the same hook and sees what is there',
      text: 'call rbx',
      sees: REAL,
    },
  ]) {
    it(`${name} [1.2.10] [P13.1] [P13.8]`, () => {
      const guest = attackGuest(`${text}\nmov r15, 7`);
      const patched = new Uint8Array(64).fill(0xcc);
      // mov rax, [rbx+0x20]; ret
      patched.set(code('488b4320c3'));
      guest.engine.cloaks.hide({
        cr3: CR3,
        va: kernel(DATA),
        length: 64,
        original: new Uint8Array(64).fill(0x11),
        patched,
        apply: true,
        allowInternal: true,
      });
      const { counters } = guest.engine;
      guest.run(200);
      expect(guest.vcpu.get('rax')).toBe(sees);
      // The page exits, whoever reads; the hook is the engine's own.
      expect(counters.eptViolations).toBeGreaterThan(0);
      expect(counters.hookCalls).toBe(0);
      expect(counters.patchedReads).toBe(sees === REAL ? 0 : 1);
      expect(guest.vcpu.get('r15')).toBe(7n);
      expect(get64(guest.machine, DATA + WORD)).toBe(REAL);
      expect(guest.problems).toEqual([]);
      guest.close();
    });
  }
});
