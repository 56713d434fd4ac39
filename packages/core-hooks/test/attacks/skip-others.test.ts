import { Access, type Cr3, type Gpa, Verdict } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { CODE, DATA, kernel, leafEntry, PML4 } from '../guest-layout.js';
import { get64, put64, type SimGuest } from '../sim-guest.js';
import { attackGuest, bytesAt } from './attack-guest.js';

const CR3 = BigInt(PML4) as Cr3;
/** A function of the guest that is rewritten while it is used. */
const FUNCTION = CODE + 0x1000;
const EVIL = 0x6666n;

/** A user's hook on a whole page that wants to be the only one to be asked. */
function skipOthersOn(guest: SimGuest, gpa: number, access: Access): () => number {
  let calls = 0;
  guest.engine.hooks.page.set({
    gpa: gpa as Gpa,
    length: 4096,
    access,
    priority: 'high',
    callback: (event) => {
      calls++;
      event.skipOthers = true;
    },
  });
  return () => calls;
}

describe('a page hook that skips the others', () => {
  for (const { name, value, blocked } of [
    { name: 'does not let rewritten code pass for the code that was asked about before', value: EVIL, blocked: true },
    { name: 'lets rewritten code do what the hook on its target allows', value: 0x2222n, blocked: false },
  ]) {
    it(`${name} [1.2.4-4] [1.2.5]`, () => {
      // 48 89 03 90 c3: mov [rbx], rax; nop; ret. Then 48 89 0b: mov [rbx], rcx.
      const guest = attackGuest(`mov rdi, ${kernel(FUNCTION)}
        mov dword ptr [rdi], 0x90038948
        mov byte ptr [rdi+4], 0xc3
        mov rax, 0x1111
        mov rcx, ${value}
        call rdi
        mov dword ptr [rdi], 0x900b8948
        call rdi`);
      const calls = skipOthersOn(guest, FUNCTION, Access.WRITE);
      const seen: string[] = [];
      guest.engine.hooks.page.set({
        gpa: DATA as Gpa,
        length: 8,
        access: Access.WRITE,
        callback: (event) => {
          seen.push(event.instruction!.text);
          event.verdict = event.newValue()!.bytes[0] === 0x66 ? Verdict.NOT_ALLOWED : Verdict.ALLOWED;
        },
      });
      guest.run(200);
      expect(seen.at(-1)).toContain('rcx');
      expect(calls()).toBe(3);
      expect(get64(guest.machine, DATA)).toBe(blocked ? 0x1111n : value);
      expect(guest.problems).toEqual([]);
      guest.close();
    });
  }

  for (const { name, target, blocked } of [
    { name: 'does not let a watched page be mapped to a frame of the attacker', target: DATA + 0x2000, blocked: true },
    { name: 'lets a watched page be mapped where its hook allows it', target: DATA + 0x3000, blocked: false },
  ]) {
    it(`${name} [1.2.5]`, () => {
      const entry = leafEntry(DATA + 0x1000);
      const guest = attackGuest(`mov rdi, ${kernel(entry)}\nmov rax, ${BigInt(target) | 7n}\nmov [rdi], rax`);
      const before = get64(guest.machine, entry);
      const calls = skipOthersOn(guest, entry & ~0xfff, Access.WRITE);
      const asked: (number | undefined)[] = [];
      guest.engine.hooks.translation.set({
        cr3: CR3,
        va: kernel(DATA + 0x1000),
        callback: (event) => {
          asked.push(event.newGpa);
          event.verdict = event.newGpa === DATA + 0x2000 ? Verdict.NOT_ALLOWED : Verdict.ALLOWED;
        },
      });
      guest.run(200);
      expect(asked).toEqual([target]);
      expect(calls()).toBe(1);
      expect(get64(guest.machine, entry)).toBe(blocked ? before : BigInt(target) | 7n);
      expect(guest.problems).toEqual([]);
      guest.close();
    });
  }

  for (const { name, offset, blocked } of [
    { name: 'does not show hidden bytes, nor lets them be overwritten', offset: 0, blocked: true },
    { name: 'lets the bytes beside hidden ones be read and written', offset: 8, blocked: false },
  ]) {
    it(`${name} [1.2.5] [P13.2]`, () => {
      const guest = attackGuest(`mov rax, [rbx+${offset}]\nmov qword ptr [rbx+${offset}], 7`);
      put64(guest.machine, DATA + 8, 0x4444n);
      const reads = skipOthersOn(guest, DATA, Access.READ);
      const writes = skipOthersOn(guest, DATA, Access.WRITE);
      guest.engine.cloaks.hide({
        cr3: CR3,
        va: kernel(DATA),
        length: 8,
        original: Uint8Array.of(0x33, 0x33, 0, 0, 0, 0, 0, 0),
        patched: new Uint8Array(8).fill(0xcc),
        apply: true,
      });
      guest.run(200);
      expect([reads(), writes()]).toEqual([1, 1]);
      expect(guest.vcpu.get('rax')).toBe(blocked ? 0x3333n : 0x4444n);
      expect(bytesAt(guest, DATA, 8)).toEqual(Array.from({ length: 8 }, () => 0xcc));
      expect(get64(guest.machine, DATA + 8)).toBe(blocked ? 0x4444n : 7n);
      expect(guest.problems).toEqual([]);
      guest.close();
    });
  }
});
