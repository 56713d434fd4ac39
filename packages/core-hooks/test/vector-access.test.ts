import { Access, type Gpa, Verdict, XSAVE_AREA } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { CODE, DATA, kernel } from './guest-layout.js';
import { code, get64, microMachine, prepare, put64, SimGuest } from './sim-guest.js';

const HLT = 'f4';
/** Where the guest leaves what it read, on a page of its own. */
const OUT = DATA + 0x1000;
const REAL = 0x5ec7_5ec7_5ec7_5ec7n;
const SHOWN = 0x1111_1111_1111_1111n;
const FIELD = XSAVE_AREA.offset;
const CR4_OSXSAVE = 1n << 18n;

/** A guest with RBX at a place in its data and RDI where it leaves its results; every state component is on. */
function guestWith(hex: string, from: number, secret = from): SimGuest {
  const machine = microMachine();
  prepare(machine);
  machine.writePhysical(CODE as Gpa, code(hex + HLT));
  put64(machine, secret, REAL);
  const guest = new SimGuest(machine);
  const { vcpu } = guest;
  vcpu.set('cr4', vcpu.get('cr4') | CR4_OSXSAVE);
  vcpu.set('xcr0', 7n);
  vcpu.set('rax', 7n);
  vcpu.set('rdx', 0n);
  vcpu.set('rbx', kernel(from));
  vcpu.set('rdi', kernel(OUT));
  return guest;
}

/** Shows the guest {@link SHOWN} in place of the 8 bytes at an address. */
function hide(guest: SimGuest, gpa: number): void {
  const shown = new Uint8Array(new BigUint64Array([SHOWN]).buffer);
  guest.engine.hooks.page.set({
    gpa: gpa as Gpa,
    length: 8,
    access: Access.READ,
    callback: (event) => void event.overlay(gpa as Gpa, shown),
  });
}

describe('hidden bytes', () => {
  it.each([
    ['movups xmm0', '0f1003'],
    ['movdqa xmm0', '660f6f03'],
    ['lddqu xmm0', 'f20ff003'],
    ['paddb xmm0', '660ffc03'],
    ['punpcklqdq xmm0', '660f6c03'],
    ['movq xmm0', 'f30f7e03'],
    ['movlps xmm0', '0f1203'],
  ])('are what %s, [memory] sees; beside them it sees memory [1.2.4-13]', (_name, hex) => {
    for (const [offset, seen] of [
      [0, SHOWN],
      [0x40, REAL],
    ] as const) {
      // PXOR XMM0, XMM0; the load; MOVUPS [RDI], XMM0
      const guest = guestWith(`660fefc0${hex}0f1107`, DATA + offset);
      hide(guest, DATA);
      guest.run(20);
      const high = hex === '660f6c03';
      expect(get64(guest.machine, OUT + (high ? 8 : 0))).toBe(seen);
      expect(guest.problems).toEqual([]);
      guest.close();
    }
  });

  it.each([
    ['FXRSTOR', '0fae0b', '0fae07'],
    ['XRSTOR', '0fae2b', '0fae27'],
  ])(
    'are not to be had by %s: those that a reply can hold it sees, for others it is stopped [1.2.4-13] [P12.8]',
    (_name, load, save) => {
      // A register in the first 64 bytes of the area, and one behind them; the twin has no hidden bytes in its area.
      for (const [hidden, field, seen, blocked] of [
        [FIELD.st + 16, FIELD.st + 16, SHOWN, false],
        [FIELD.xmm + 16, FIELD.xmm + 16, 0n, true],
        [0x800, FIELD.xmm + 16, REAL, false],
      ] as const) {
        const guest = guestWith(`${load}${save}`, DATA, DATA + field);
        if (save === '0fae27') put64(guest.machine, DATA + FIELD.xstateBv, 3n);
        hide(guest, DATA + hidden);
        guest.run(20);
        const left = get64(guest.machine, OUT + field);
        expect(left).toBe(seen);
        expect(guest.problems.map((problem) => problem.kind)).toEqual(blocked ? ['hidden-read'] : []);
        guest.close();
      }
    },
  );
});

describe('bytes that may not be written', () => {
  it.each([
    ['movups [rbx], xmm0', '0f1103', 16],
    ['movntdq [rbx], xmm0', '660fe703', 16],
    ['fxsave [rbx]', '0fae03', 160],
    ['xsave [rbx]', '0fae23', 160],
    ['xsaveopt [rbx]', '0fae33', 160],
    ['xsavec [rbx]', '0fc723', 160],
  ])('are safe from %s, which happens beside them [1.2.4-11] [P12.8]', (_name, hex, offset) => {
    for (const [guarded, blocked] of [
      [DATA + offset - 8, true],
      [DATA + 0x800, false],
    ] as const) {
      // PCMPEQD XMM0, XMM0; the store
      const guest = guestWith(`660f76c0${hex}`, DATA, 0x800 + DATA);
      let asked = 0;
      guest.engine.hooks.page.set({
        gpa: guarded as Gpa,
        length: 8,
        access: Access.WRITE,
        callback: (event) => {
          asked++;
          // Of what one register brings the value is known before it is written.
          expect(event.newValue()?.bytes).toEqual(offset === 16 ? new Uint8Array(16).fill(0xff) : undefined);
          event.verdict = Verdict.NOT_ALLOWED;
        },
      });
      guest.run(20);
      expect(asked > 0, hex).toBe(blocked);
      const at = offset === 16 ? DATA : DATA + FIELD.xmm;
      expect(get64(guest.machine, at), hex).toBe(blocked ? 0n : 0xffff_ffff_ffff_ffffn);
      expect(get64(guest.machine, DATA + 0x800)).toBe(REAL);
      guest.close();
    }
  });
});
