import { Access, type Gpa, ShutdownReason, Verdict } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { CODE, DATA, kernel, PML4, STACK } from './guest-layout.js';
import { code, get64, microMachine, prepare, SimGuest } from './sim-guest.js';

function guestWith(hex: string, options: ConstructorParameters<typeof SimGuest>[1] = {}): SimGuest {
  const machine = microMachine();
  prepare(machine);
  machine.writePhysical(CODE as Gpa, code(hex));
  const guest = new SimGuest(machine, options);
  guest.vcpu.set('rbx', kernel(DATA));
  return guest;
}

/** mov [rbx], rcx; dec rcx; jnz; hlt */
const COUNT_DOWN = '48 89 0b 48 ff c9 75 f8 f4';

describe('the engine on a running guest', () => {
  it('removes a hook from inside its callback; the guest goes on without exits [1.2.1] [P4.7]', () => {
    const guest = guestWith(COUNT_DOWN);
    guest.vcpu.set('rcx', 100n);
    const seen: bigint[] = [];
    guest.engine.hooks.page.set({
      gpa: DATA as Gpa,
      length: 8,
      access: Access.WRITE,
      callback: (event) => {
        seen.push(event.vcpu.get('rcx'));
        event.removeHook = seen.length === 3;
      },
    });
    guest.run(200);
    expect(seen).toEqual([100n, 99n, 98n]);
    expect(guest.engine.counters.exits).toBeLessThan(10);
    expect(get64(guest.machine, DATA)).toBe(1n);
    expect(guest.engine.shutdownReason).toBe(ShutdownReason.HALTED);
    guest.close();
  });

  it('closes with hooks set, and the guest runs as if nobody had been there', () => {
    const guest = guestWith(COUNT_DOWN);
    guest.vcpu.set('rcx', 5000n);
    guest.engine.hooks.page.set({
      gpa: DATA as Gpa,
      length: 8,
      access: Access.WRITE,
      callback: (event) => {
        event.verdict = Verdict.NOT_ALLOWED;
      },
    });
    guest.engine.hooks.cr.set(3, () => undefined);
    for (let exit = 0; exit < 20; exit++) {
      guest.engine.step(10);
    }
    expect(get64(guest.machine, DATA)).toBe(0n);
    guest.close();
    expect(guest.machine.run(100_000)).toBe('shutdown');
    expect(get64(guest.machine, DATA)).toBe(1n);
  });

  it('lets the guest go on when every callback throws', () => {
    for (const [fallback, expected] of [
      ['allow', 1n],
      ['block', 0n],
    ] as const) {
      const guest = guestWith(COUNT_DOWN, { fallback });
      guest.vcpu.set('rcx', 5n);
      guest.engine.hooks.page.set({
        gpa: DATA as Gpa,
        length: 8,
        access: Access.WRITE,
        callback: () => {
          throw new Error('broken');
        },
      });
      guest.run(100);
      expect(get64(guest.machine, DATA)).toBe(expected);
      expect(guest.problems).toHaveLength(5);
      guest.close();
    }
  });

  it('sees a write of CR3 before it happens, and can block it', () => {
    // mov cr3, rax; hlt
    for (const verdict of [Verdict.ALLOWED, Verdict.NOT_ALLOWED]) {
      const guest = guestWith('0f 22 d8 f4');
      const value = BigInt(PML4) | 0x18n;
      guest.vcpu.set('rax', value);
      const seen: bigint[] = [];
      guest.engine.hooks.cr.set(3, (event) => {
        seen.push(event.oldValue, event.newValue, event.vcpu.get('cr3'));
        event.verdict = verdict;
      });
      guest.run(50);
      expect(seen).toEqual([BigInt(PML4), value, BigInt(PML4)]);
      expect(guest.vcpu.get('cr3')).toBe(verdict === Verdict.ALLOWED ? value : BigInt(PML4));
      guest.close();
    }
  });

  it('ticks once a second of guest time [1.2.8 timer]', () => {
    // jmp self
    const guest = guestWith('eb fe');
    const times: number[] = [];
    guest.engine.hooks.tick.set((event) => times.push(event.time));
    while (times.length < 2) {
      guest.engine.step(100);
    }
    expect(times).toEqual([1_000_000, 2_000_000]);
    guest.close();
  });

  it('is asked about what the processor itself writes when it delivers an event to a hooked stack', () => {
    // int3 with an IDT whose gate 3 leads to a hlt; the frame goes to the stack page
    const guest = guestWith('cc f4');
    const { machine } = guest;
    const idt = DATA + 0x2000;
    const gdt = DATA + 0x3000;
    const target = kernel(CODE + 1);
    const gate = new DataView(new ArrayBuffer(16));
    gate.setUint16(0, Number(target & 0xffffn), true);
    gate.setUint16(2, 0x10, true);
    gate.setUint16(4, 0x8e00, true);
    gate.setUint16(6, Number((target >> 16n) & 0xffffn), true);
    gate.setUint32(8, Number(target >> 32n), true);
    machine.writePhysical((idt + 3 * 16) as Gpa, new Uint8Array(gate.buffer));
    const descriptors = new DataView(new ArrayBuffer(32));
    descriptors.setBigUint64(0x10, 0x00af_9b00_0000_ffffn, true);
    descriptors.setBigUint64(0x18, 0x00cf_9300_0000_ffffn, true);
    machine.writePhysical(gdt as Gpa, new Uint8Array(descriptors.buffer));
    guest.vcpu.set('idtBase', kernel(idt));
    guest.vcpu.set32('idtLimit', 0xfff);
    guest.vcpu.set('gdtBase', kernel(gdt));
    guest.vcpu.set32('gdtLimit', 31);
    const seen: (string | undefined)[] = [];
    guest.engine.hooks.page.set({
      gpa: (STACK - 4096) as Gpa,
      length: 4096,
      access: Access.WRITE,
      callback: (event) => seen.push(event.instruction?.text),
    });
    guest.run(50);
    expect(seen.length).toBeGreaterThan(0);
    expect(new Set(seen)).toEqual(new Set([undefined]));
    expect(guest.engine.counters.eventDeliveries).toBe(seen.length);
    expect(get64(machine, STACK - 40)).toBe(kernel(CODE + 1));
    guest.close();
  });
});
