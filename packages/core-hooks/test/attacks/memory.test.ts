import { Access, type Gpa, Reply, Verdict } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import type { AccessEvent, ExitOutcome } from '../../src/index.js';
import { DATA, kernel, leafEntry, STACK } from '../guest-layout.js';
import { get64, put64, type SimGuest } from '../sim-guest.js';
import { attackGuest, bytesAt, FAULT, NO_FAULT } from './attack-guest.js';

function hook(
  guest: SimGuest,
  gpa: number,
  length: number,
  access: Access,
  callback: (event: AccessEvent) => void,
): void {
  guest.engine.hooks.page.set({ gpa: gpa as Gpa, length, access, callback });
}

/** Runs to the end and gives the reasons of all exits. */
function reasons(guest: SimGuest, maxSteps = 200): string[] {
  const found: string[] = [];
  for (let step = 0; step < maxSteps; step++) {
    const result = guest.engine.step(10);
    if (result === 'shutdown') {
      return found;
    }
    if (result === 'exit') {
      const { reason }: ExitOutcome = guest.engine.lastExit;
      found.push(reason);
    }
  }
  throw new Error('the guest did not stop');
}

describe('a PUSH that reads a hooked page and writes a hooked stack', () => {
  const SLOT = STACK - 8;

  function push(value: bigint) {
    const guest = attackGuest('push qword ptr [rbx]\nmov r15, 7');
    put64(guest.machine, DATA, value);
    const calls: string[] = [];
    hook(guest, DATA, 8, Access.READ, (event) => {
      calls.push('read');
      expect(event.oldBytes()).toHaveLength(8);
    });
    hook(guest, SLOT, 8, Access.WRITE, (event) => {
      calls.push('write');
      const bytes = event.newValue()!.bytes;
      event.verdict = bytes[0] === 0x41 ? Verdict.NOT_ALLOWED : Verdict.ALLOWED;
    });
    guest.run(50);
    return { guest, calls };
  }

  it('is blocked for what it would store, with both hooks asked [1.2.4-11] [1.2.5]', () => {
    const { guest, calls } = push(0x41n);
    expect(calls).toContain('read');
    expect(calls).toContain('write');
    expect(get64(guest.machine, SLOT)).toBe(0n);
    expect(guest.vcpu.get('r15')).toBe(7n);
    guest.close();
  });

  it('passes the same hooks with another value [1.2.4-11] [1.2.5]', () => {
    const { guest, calls } = push(0x42n);
    expect(calls).toContain('read');
    expect(calls).toContain('write');
    expect(get64(guest.machine, SLOT)).toBe(0x42n);
    expect(guest.vcpu.get('rsp')).toBe(kernel(SLOT));
    guest.close();
  });
});

describe('a REP MOVSB into a hooked range from the middle of its page', () => {
  const TARGET = DATA + 0x1000;
  const HIDDEN = TARGET + 0x40;

  function copy(value: number, { from = TARGET, count = 0x80, down = false } = {}) {
    const guest = attackGuest(`${down ? 'std' : 'cld'}\nrep movsb\nmov r15, 7`);
    guest.machine.writePhysical(DATA as Gpa, new Uint8Array(0x400).fill(value));
    guest.vcpu.set('rsi', kernel(down ? DATA + count - 1 : DATA));
    guest.vcpu.set('rdi', kernel(down ? from + count - 1 : from));
    guest.vcpu.set('rcx', BigInt(count));
    let asked = 0;
    hook(guest, HIDDEN, 8, Access.WRITE, (event) => {
      asked++;
      event.verdict = event.newValue()?.bytes[0] === 0x41 ? Verdict.NOT_ALLOWED : Verdict.ALLOWED;
    });
    const why = reasons(guest, 1000);
    expect(guest.vcpu.get('r15')).toBe(7n);
    return { guest, asked, why };
  }

  for (const down of [false, true]) {
    const direction = down ? 'downwards' : 'upwards';
    it(`${direction}: each hooked byte is asked about and kept, the others are written [1.2.4-8] [1.2.4-12]`, () => {
      const { guest, asked, why } = copy(0x41, { down });
      expect(asked).toBe(8);
      expect(why).toContain('retry-rep');
      expect(bytesAt(guest, TARGET, 0x80)).toEqual(
        Array.from({ length: 0x80 }, (_, at) => (at >= 0x40 && at < 0x48 ? 0 : 0x41)),
      );
      expect(guest.vcpu.get('rcx')).toBe(0n);
      guest.close();
    });
  }

  it('passes the same hook with another value [1.2.4-12]', () => {
    const { guest, asked } = copy(0x42);
    expect(asked).toBe(8);
    expect(bytesAt(guest, HIDDEN, 8)).toEqual(Array.from({ length: 8 }, () => 0x42));
    guest.close();
  });

  it('that does not reach the hook happens without asking it, and without an exit for each element being wanted [1.2.4-12]', () => {
    const { guest, asked, why } = copy(0x41, { from: TARGET + 0x100, count: 0x200 });
    expect(asked).toBe(0);
    expect(why).not.toContain('retry-rep');
    expect(bytesAt(guest, TARGET + 0x100, 0x200)).toEqual(Array.from({ length: 0x200 }, () => 0x41));
    guest.close();
  });
});

describe('a write that crosses into an unmapped page', () => {
  const PAGE = DATA + 0x5000;

  function cross(mapped: boolean) {
    const guest = attackGuest('mov qword ptr [rdi], rax\nmov r15, 7');
    if (!mapped) {
      put64(guest.machine, leafEntry(PAGE + 0x1000), 0n);
    }
    guest.vcpu.set('rdi', kernel(PAGE + 0xffc));
    guest.vcpu.set('rax', 0x1122_3344_5566_7788n);
    let asked = 0;
    hook(guest, PAGE + 0xff0, 16, Access.WRITE, () => {
      asked++;
    });
    const why = reasons(guest);
    return { guest, asked, why };
  }

  it('gives the guest its page fault, and no hook is asked about what does not happen [1.2.7]', () => {
    const { guest, asked, why } = cross(false);
    expect(asked).toBe(0);
    expect(why).toContain('page-fault');
    expect(bytesAt(guest, FAULT, 1)).toEqual([14]);
    expect(guest.vcpu.get('cr2')).toBe(kernel(PAGE + 0x1000));
    expect(bytesAt(guest, PAGE + 0xffc, 4)).toEqual([0, 0, 0, 0]);
    guest.close();
  });

  it('passes the same hook when the page is there [1.2.7]', () => {
    const { guest, asked } = cross(true);
    expect(asked).toBe(1);
    expect(bytesAt(guest, PAGE + 0xffc, 8)).toEqual([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    expect(bytesAt(guest, FAULT, 1)).toEqual([NO_FAULT]);
    guest.close();
  });
});

describe('hidden bytes', () => {
  const HIDDEN = DATA + 0x6800;
  const REAL = 0xcc;
  const SHOWN = 0x90;

  function read(text: string, setUp: (guest: SimGuest) => void = () => {}) {
    const guest = attackGuest(`${text}\nmov r15, 7`);
    guest.machine.writePhysical(HIDDEN as Gpa, new Uint8Array(64).fill(REAL));
    guest.vcpu.set('rsi', kernel(HIDDEN));
    guest.vcpu.set('rdi', kernel(DATA + 0x100));
    hook(guest, HIDDEN, 32, Access.READ, (event) => {
      expect(event.overlay(HIDDEN as Gpa, new Uint8Array(32).fill(SHOWN))).toBe(true);
    });
    setUp(guest);
    const why = reasons(guest);
    expect(guest.vcpu.get('r15')).toBe(7n);
    return { guest, why };
  }

  for (const size of [1, 2, 4, 8]) {
    for (const offset of [-7, -1, 0, 1, 27, 31, 32]) {
      it(`are not read by ${size} bytes at ${offset} [1.2.6] [1.2.4-13]`, () => {
        const name = { 1: 'al', 2: 'ax', 4: 'eax', 8: 'rax' }[size]!;
        const { guest } = read(`mov ${name}, [rsi]`, ({ vcpu }) => vcpu.set('rsi', kernel(HIDDEN + offset)));
        const expected = Array.from({ length: size }, (_, at) => {
          const position = offset + at;
          return position < 0 ? 0 : position < 32 ? SHOWN : REAL;
        });
        const value = guest.vcpu.get('rax');
        expect(Array.from({ length: size }, (_, at) => Number((value >> BigInt(at * 8)) & 0xffn))).toEqual(expected);
        guest.close();
      });
    }
  }

  it('are not copied by MOVS, nor pushed [1.2.6]', () => {
    const moved = read('movsq');
    expect(get64(moved.guest.machine, DATA + 0x100)).toBe(0x9090_9090_9090_9090n);
    moved.guest.close();
    const pushed = read('push qword ptr [rsi]');
    expect(get64(pushed.guest.machine, STACK - 8)).toBe(0x9090_9090_9090_9090n);
    pushed.guest.close();
  });

  it('are not copied by a REP MOVSB over more of the page than a reply holds [1.2.6] [1.2.4-12]', () => {
    const { guest } = read('rep movsb', ({ vcpu }) => {
      vcpu.set('rsi', kernel(HIDDEN - 0x80 + 0x80));
      vcpu.set('rcx', 48n);
    });
    expect(bytesAt(guest, DATA + 0x100, 48)).toEqual(Array.from({ length: 48 }, (_, at) => (at < 32 ? SHOWN : REAL)));
    guest.close();
  });

  it('are not pushed onto a page-table page: the engine stores what the guest shall see [1.2.6]', () => {
    const entry = DATA + 0x7000;
    const { guest } = read('push qword ptr [rsi]', ({ vcpu, engine }) => {
      vcpu.set('rsp', kernel(entry + 8));
      engine.hooks.page.set({
        gpa: entry as Gpa,
        length: 8,
        access: Access.WRITE,
        pagingStructure: true,
        callback: (event) => {
          expect(event.pageTableWrite!.new).toBe(0x9090_9090_9090_9090n);
        },
      });
    });
    expect(get64(guest.machine, entry)).toBe(0x9090_9090_9090_9090n);
    guest.close();
  });

  for (const { rsi, rdi } of [
    { rsi: 0, rdi: 16 },
    { rsi: 16, rdi: 0 },
    { rsi: 0, rdi: 0x100 },
    { rsi: 0x100, rdi: 0 },
  ]) {
    it(`are compared as what they look like by CMPS at ${rsi} and ${rdi} of one page [P13.13]`, () => {
      const { guest, why } = read('mov ecx, 2\nrepe cmpsq\nsete r14b', ({ vcpu, machine }) => {
        // Real bytes differ everywhere; what is shown, and what lies behind the hidden range, is the same.
        machine.writePhysical(
          HIDDEN as Gpa,
          Uint8Array.from({ length: 32 }, (_, at) => at),
        );
        machine.writePhysical((HIDDEN + 0x100) as Gpa, new Uint8Array(16).fill(SHOWN));
        vcpu.set('rsi', kernel(HIDDEN + rsi));
        vcpu.set('rdi', kernel(HIDDEN + rdi));
      });
      expect(why).toContain('read-supplied');
      expect(guest.vcpu.get('r14')).toBe(1n);
      expect(guest.vcpu.get('rcx')).toBe(0n);
      guest.close();
    });
  }

  it('that no reply can show are not read: FXRSTOR is blocked and reported [1.2.4-13]', () => {
    const { guest, why } = read('fxrstor [rsi]', ({ vcpu }) => vcpu.set('rsi', kernel(HIDDEN - 0x180)));
    expect(why).toContain('hidden-read');
    expect(guest.problems.map(({ kind }) => kind)).toEqual(['hidden-read']);
    guest.close();
  });
});

describe('an instruction that goes on in an unmapped page', () => {
  it('gives the guest the page fault of its fetch [1.2.4-14]', () => {
    const page = DATA + 0xc000;
    const guest = attackGuest('jmp rdi');
    // The first half of mov rax, imm64 in the last 2 bytes of a page.
    guest.machine.writePhysical((page + 0xffe) as Gpa, Uint8Array.of(0x48, 0xb8));
    put64(guest.machine, leafEntry(page + 0x1000), 0n);
    guest.vcpu.set('rdi', kernel(page + 0xffe));
    let asked = 0;
    hook(guest, page, 4096, Access.EXECUTE, () => {
      asked++;
    });
    const why = reasons(guest);
    expect(asked).toBe(0);
    expect(why).toContain('page-fault');
    expect(guest.vcpu.get('cr2')).toBe(kernel(page + 0x1000));
    expect(bytesAt(guest, FAULT, 1)).toEqual([14]);
    guest.close();
  });
});

describe('what was done about an exit', () => {
  it('is told with reason, verdict, reply and calls [1.2.4-4] [P11.13]', () => {
    const guest = attackGuest('mov [rbx], rax\nmov r15, 7');
    hook(guest, DATA, 8, Access.WRITE, (event) => {
      event.verdict = Verdict.NOT_ALLOWED;
    });
    guest.engine.hooks.page.flush();
    expect(guest.engine.step(10)).toBe('exit');
    expect(guest.engine.lastExit).toMatchObject({ reason: 'retry-not-cached', reply: Reply.RETRY, hookCalls: 0 });
    expect(guest.engine.step(10)).toBe('exit');
    expect(guest.engine.lastExit).toMatchObject({
      reason: 'hooks',
      verdict: Verdict.NOT_ALLOWED,
      reply: Reply.SKIP,
      hookCalls: 1,
    });
    guest.close();
  });
});
