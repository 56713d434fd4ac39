import type { Cr3, Gpa, Gva } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { createCodeImages, createThreadStates } from '../src/testing.js';
import { BY_VMCALL, PLAIN } from './detour-guest.js';
import { CODE } from './guest-layout.js';
import type { Mode } from './naive-walker.js';
import { PagedGuest } from './paged-guest.js';
import { code } from './sim-guest.js';

const FUNCTION = CODE + 0x400;
const SLACK = CODE + 0xe00;
/** push ebp; mov ebp, esp; sub esp, 16; mov eax, [ebp + 8]; add eax, [ebp + 12]; leave; ret */
const SUM_32 = '55 8bec 83ec10 8b4508 03450c c9 c3';
/** call the next but one instruction; mov eax, [esp + 4]; add eax, [esp + 8]; ret; and what is called: ret */
const CALL_FIRST_32 = 'e809000000 8b442404 03442408 c3 c3';
/** mov [rsp + 8], rbx; lea rax, [rcx + rdx]; ret */
const SUM_64 = '48895c2408 488d0411 c3';

const CALLERS: Readonly<Record<32 | 64, string>> = {
  32: `push 12\npush 30\nmov eax, ${FUNCTION}\ncall eax\nmov ebx, [${FUNCTION}]\nhlt`,
  64: `mov rcx, 30\nmov rdx, 12\nmov rax, ${FUNCTION}\ncall rax\nmov rbx, [rax + ${FUNCTION - 42}]\nhlt`,
};

describe('a detour', () => {
  for (const [mode, bitness, functions] of [
    ['32-bit', 32, [SUM_32, CALL_FIRST_32]],
    ['pae', 32, [SUM_32, CALL_FIRST_32]],
    ['4-level', 64, [SUM_64]],
    ['5-level', 64, [SUM_64]],
  ] as readonly (readonly [Mode, 32 | 64, readonly string[]])[]) {
    it(`in a guest with ${mode} paging: arguments, return, hidden branch, and every byte back [P15.1] [P15.9] [P15.16]`, () => {
      for (const body of functions) {
        for (const handler of [PLAIN, BY_VMCALL]) {
          const guest = new PagedGuest(mode);
          const { machine, engine } = guest;
          const cr3 = guest.cr3 as Cr3;
          guest.start(CALLERS[bitness]);
          machine.writePhysical(FUNCTION as Gpa, code(body));
          engine.addressSpaces = { systemCr3: cr3, isKnown: () => true, pagingMode: mode };
          engine.threadStates = createThreadStates({
            kernelStart: BigInt(CODE) as Gva,
            wordSize: bitness === 32 ? 4 : 8,
            running: [],
            waiting: [],
          });
          const text = { name: '.text', start: BigInt(CODE) as Gva, size: SLACK - CODE };
          engine.codeImages = createCodeImages(engine.memory, cr3, {
            bitness,
            images: [
              {
                name: 'ntoskrnl.exe',
                base: text.start,
                size: 0x1000,
                sections: [text],
                exports: { Sum: BigInt(FUNCTION) as Gva },
              },
            ],
          });
          const before = machine.mapPage((CODE >> 12) as never)!.slice();
          const seen: unknown[] = [];
          const result = engine.detours.set({
            name: 'Sum',
            function: { by: 'export', name: 'Sum' },
            handlers: [handler],
            callback: (call) => {
              seen.push(call.arguments(2));
              expect(call.setArgument(1, 12n + 0xffff_ffff_0000_0000n * BigInt(bitness === 32 ? 1 : 0))).toBe(true);
            },
          });
          expect(result).toMatchObject({ status: 'set' });
          expect(machine.mapPage((CODE >> 12) as never)![FUNCTION & 0xfff]).toBe(0xe9);
          guest.run(1000);
          expect(seen).toEqual([[30n, 12n]]);
          expect(guest.vcpu.get('rax')).toBe(42n);
          const first = Buffer.from(before).readUInt32LE(FUNCTION & 0xfff);
          expect(Number(guest.vcpu.get('rbx') & 0xffff_ffffn)).toBe(first);
          expect(guest.problems).toEqual([]);
          engine.detours.removeAll();
          expect(Buffer.compare(machine.mapPage((CODE >> 12) as never)!, before)).toBe(0);
          guest.close();
        }
      }
    });
  }
});
