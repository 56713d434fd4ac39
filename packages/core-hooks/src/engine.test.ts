import {
  Access,
  cr3,
  ExitCause,
  ExitKind,
  type Gpa,
  type Gva,
  Reply,
  ShutdownReason,
  Verdict,
  XSAVE_AREA,
  XStateComponent,
} from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { CODE, DATA, kernel, leafEntry, PML4, STACK } from '../test/guest-layout.js';
import { SyntheticGuest } from '../test/synthetic-guest.js';
import { CoreHooksError, type Engine } from './index.js';

/** mov [rbx], rax */
const STORE = '48 89 03';

function storeGuest(): SyntheticGuest {
  const guest = new SyntheticGuest();
  guest.code(STORE);
  guest.vcpu.set('rbx', kernel(DATA + 0x100));
  guest.vcpu.set('rax', 0x1122_3344_5566_7788n);
  return guest;
}

describe('an EPT violation', () => {
  it('calls the hook in range, with the instruction, once the code page is guarded [1.2.4-0] [1.2.4-4]', () => {
    const guest = storeGuest();
    const seen: string[] = [];
    guest.engine.hooks.page.set({
      gpa: (DATA + 0x100) as Gpa,
      length: 8,
      access: Access.WRITE,
      callback: (event) => {
        seen.push(
          `${event.instruction?.text} at ${event.gla.toString(16)} size ${event.size} rip ${event.rip.toString(16)}`,
        );
        seen.push(Buffer.from(event.newValue()!.bytes).toString('hex'), Buffer.from(event.oldBytes()).toString('hex'));
      },
    });
    guest.violate(DATA + 0x100);
    expect(guest.port.lastReply(0)).toBe(Reply.RETRY);
    expect(guest.port.getPageAccess((CODE >> 12) as never)).toBe(Access.READ | Access.EXECUTE);
    expect(seen).toEqual([]);
    guest.violate(DATA + 0x100);
    expect(guest.port.lastReply(0)).toBe(Reply.ALLOW_ONCE);
    expect(seen).toEqual([
      'mov [rbx], rax at ffff800000020100 size 8 rip ffff800000010000',
      '8877665544332211',
      '0000000000000000',
    ]);
    expect(guest.engine.counters.cacheHits).toBe(1);
  });

  it('calls no hook that is not in range, and lets the write happen [P4.5]', () => {
    const guest = storeGuest();
    let calls = 0;
    for (const offset of [0xf8, 0x108]) {
      guest.engine.hooks.page.set({
        gpa: (DATA + offset) as Gpa,
        length: 8,
        access: Access.WRITE,
        callback: () => calls++,
      });
    }
    guest.settle(DATA + 0x100);
    expect(calls).toBe(0);
    expect(guest.port.lastReply(0)).toBe(Reply.ALLOW_ONCE);
  });

  it('takes the strongest verdict, high priority first, first come first served inside a class [1.2.3] [1.2.5] [P4.6]', () => {
    const guest = storeGuest();
    const order: string[] = [];
    const set = (name: string, priority: 'high' | 'normal', verdict: Verdict) =>
      guest.engine.hooks.page.set({
        gpa: (DATA + 0x100) as Gpa,
        length: 1,
        access: Access.WRITE,
        priority,
        callback: (event) => {
          order.push(name);
          event.verdict = verdict;
        },
      });
    set('n1', 'normal', Verdict.ALLOWED);
    set('h1', 'high', Verdict.NOT_ALLOWED);
    set('h2', 'high', Verdict.ALLOWED);
    set('n2', 'normal', Verdict.ALLOWED);
    guest.settle(DATA + 0x100);
    expect(order).toEqual(['h1', 'h2', 'n1', 'n2']);
    expect(guest.port.lastReply(0)).toBe(Reply.SKIP);
  });

  it('stops at a callback that says so [1.2.5]', () => {
    const guest = storeGuest();
    let second = 0;
    const range = { gpa: (DATA + 0x100) as Gpa, length: 1, access: Access.WRITE };
    guest.engine.hooks.page.set({
      ...range,
      callback: (event) => {
        event.skipOthers = true;
      },
    });
    guest.engine.hooks.page.set({ ...range, callback: () => second++ });
    guest.settle(DATA + 0x100);
    expect(second).toBe(0);
  });

  it('asks about every address that the instruction touches [1.2.4-11]', () => {
    // push [rbx]: the read faults, the stack is hooked for writes
    const guest = new SyntheticGuest();
    guest.code('ff 33');
    guest.vcpu.set('rbx', kernel(DATA));
    const seen: string[] = [];
    guest.engine.hooks.page.set({
      gpa: DATA as Gpa,
      length: 4096,
      access: Access.READ,
      callback: (event) => seen.push(`read ${event.gpa.toString(16)}`),
    });
    guest.engine.hooks.page.set({
      gpa: (STACK - 4096) as Gpa,
      length: 4096,
      access: Access.WRITE,
      callback: (event) => {
        seen.push(`write ${event.gpa.toString(16)}`);
        event.verdict = Verdict.NOT_ALLOWED;
      },
    });
    guest.settle(DATA, Access.READ);
    expect(seen).toEqual(['read 20000', 'write 2fff8']);
    expect(guest.port.lastReply(0)).toBe(Reply.SKIP);
  });

  it('splits an access that crosses a page, with the second page from the guest tables [1.2.4-12]', () => {
    const guest = new SyntheticGuest();
    guest.code(STORE);
    guest.vcpu.set('rbx', kernel(DATA + 0xffc));
    guest.put64(leafEntry(DATA + 0x1000), BigInt(DATA + 0x5000) | 3n);
    const seen: string[] = [];
    for (const page of [DATA, DATA + 0x1000, DATA + 0x5000]) {
      guest.engine.hooks.page.set({
        gpa: page as Gpa,
        length: 4096,
        access: Access.WRITE,
        callback: (event) => seen.push(`${event.gpa.toString(16)}+${event.size}`),
      });
    }
    guest.settle(DATA + 0xffc);
    expect(seen).toEqual(['20ffc+4', '25000+4']);
  });

  it('of a delivered event is asked about without an instruction', () => {
    const guest = storeGuest();
    let instruction: unknown = 'not called';
    guest.engine.hooks.page.set({
      gpa: DATA as Gpa,
      length: 64,
      access: Access.WRITE,
      callback: (event) => {
        instruction = event.instruction;
        event.verdict = Verdict.NOT_ALLOWED;
      },
    });
    guest.violate(DATA, Access.WRITE, ExitCause.EVENT_DELIVERY);
    expect(instruction).toBeUndefined();
    expect(guest.port.lastReply(0)).toBe(Reply.SKIP);
  });

  it('of the page walker is let through without asking', () => {
    const guest = storeGuest();
    let calls = 0;
    guest.engine.hooks.page.set({ gpa: DATA as Gpa, length: 64, access: Access.READ, callback: () => calls++ });
    guest.violate(DATA, Access.READ, ExitCause.PAGE_WALK);
    expect(calls).toBe(0);
    expect(guest.port.lastReply(0)).toBe(Reply.ALLOW_ONCE);
  });

  it('on a page that nothing restricts has its stale rights set anew [1.2.5]', () => {
    const guest = storeGuest();
    guest.settle(DATA + 0x100);
    expect(guest.engine.counters.rightsRepairs).toBe(1);
    expect(guest.port.getPageAccess((DATA >> 12) as never)).toBe(Access.ALL);
    expect(guest.port.lastReply(0)).toBe(Reply.ALLOW_ONCE);
  });

  it('at code that is not mapped is tried again, but not for ever [1.2.4-2]', () => {
    const guest = storeGuest();
    guest.engine.hooks.page.set({
      gpa: DATA as Gpa,
      length: 4096,
      access: Access.WRITE,
      callback: (event) => {
        event.verdict = Verdict.NOT_ALLOWED;
      },
    });
    guest.put64(leafEntry(CODE), 0n);
    guest.violate(DATA + 0x100);
    expect(guest.port.lastReply(0)).toBe(Reply.RETRY);
    expect(guest.settle(DATA + 0x100)).toBeLessThan(1000);
    expect(guest.problems.map((problem) => problem.kind)).toEqual(['retry-limit']);
    expect(guest.port.lastReply(0)).toBe(Reply.SKIP);
  });

  it('of execution is allowed once, and its data exit at the same instruction is recognised [1.2.4-3] [1.2.4-10]', () => {
    const guest = storeGuest();
    let calls = 0;
    guest.engine.hooks.page.set({ gpa: CODE as Gpa, length: 16, access: Access.EXECUTE, callback: () => calls++ });
    guest.settle(CODE, Access.EXECUTE);
    expect(calls).toBe(1);
    expect(guest.port.lastReply(0)).toBe(Reply.ALLOW_ONCE);
    guest.violate(DATA + 0x100);
    expect(calls).toBe(1);
    expect(guest.engine.counters.reexecutions).toBe(1);
  });
});

describe('a gather', () => {
  it('calls the hooks of the elements that its mask selects, wherever their indices lead [P12.6]', () => {
    const guest = new SyntheticGuest();
    guest.code('c4 e2 69 90 04 8b'); // vpgatherdd xmm0, [rbx+xmm1*4], xmm2
    guest.vcpu.set('rbx', kernel(DATA));
    guest.vcpu.set('xcr0', 7n);
    const area = new Uint8Array(XSAVE_AREA.size);
    const view = new DataView(area.buffer);
    area[XSAVE_AREA.offset.xstateBv] = XStateComponent.SSE;
    const offsets = [0, 0x100, 0x200, -0x100];
    offsets.forEach((offset, element) => {
      view.setInt32(XSAVE_AREA.offset.xmm + 16 + element * 4, offset / 4, true);
      // All but the second are selected.
      view.setUint32(XSAVE_AREA.offset.xmm + 32 + element * 4, element === 1 ? 0x7fff_ffff : 0x8000_0000, true);
    });
    guest.port.writeXsaveArea(0, area);
    const seen: number[] = [];
    for (const offset of offsets) {
      guest.engine.hooks.page.set({
        gpa: (DATA + offset) as Gpa,
        length: 4,
        access: Access.READ,
        callback: (event) => void seen.push(event.gpa - DATA),
      });
    }
    guest.settle(DATA, Access.READ);
    expect(seen).toEqual([0, 0x200, -0x100]);
    expect(guest.problems).toEqual([]);
  });
});

describe('a page-table write', () => {
  const ENTRY = leafEntry(DATA);
  const OLD = BigInt(DATA) | 3n;

  function entryGuest(code: string, decide?: (engine: Engine) => void): SyntheticGuest {
    const guest = new SyntheticGuest();
    guest.code(code);
    guest.vcpu.set('rbx', kernel(ENTRY));
    guest.put64(ENTRY, OLD);
    decide?.(guest.engine);
    return guest;
  }

  it('is emulated after everybody allowed it: one compare-exchange, registers, RIP [1.2.6] [P12.12]', () => {
    // lock cmpxchg [rbx], rcx
    const guest = entryGuest('f0 48 0f b1 0b');
    guest.vcpu.set('rax', OLD);
    guest.vcpu.set('rcx', OLD | 4n);
    const seen: bigint[] = [];
    guest.engine.hooks.page.set({
      gpa: ENTRY,
      length: 8,
      access: Access.WRITE,
      pagingStructure: true,
      callback: (event) => {
        seen.push(event.pageTableWrite!.old, event.pageTableWrite!.new, guest.get64(ENTRY));
      },
    });
    guest.settle(ENTRY);
    expect(seen).toEqual([OLD, OLD | 4n, OLD]);
    expect(guest.get64(ENTRY)).toBe(OLD | 4n);
    expect(guest.vcpu.get('rip')).toBe(kernel(CODE + 5));
    expect(guest.vcpu.get('rflags') & 0x40n).toBe(0x40n);
    expect(guest.port.lastReply(0)).toBe(Reply.RETRY);
    expect(guest.port.registerStores).toBe(1);
  });

  it('commits what a callback puts in its place', () => {
    // or dword [rbx], 4
    const guest = entryGuest('83 0b 04');
    guest.engine.hooks.page.set({
      gpa: ENTRY,
      length: 8,
      access: Access.WRITE,
      pagingStructure: true,
      callback: (event) => event.pageTableWrite!.replace(event.pageTableWrite!.new & ~4n),
    });
    guest.settle(ENTRY);
    expect(guest.get64(ENTRY)).toBe(OLD);
    expect(guest.vcpu.get('rip')).toBe(kernel(CODE + 3));
  });

  it('that is denied changes nothing', () => {
    // xchg [rbx], rax
    const guest = entryGuest('48 87 03');
    guest.vcpu.set('rax', 0xdead_0007n);
    guest.engine.hooks.page.set({
      gpa: ENTRY,
      length: 8,
      access: Access.WRITE,
      pagingStructure: true,
      callback: (event) => {
        event.verdict = Verdict.NOT_ALLOWED;
      },
    });
    guest.settle(ENTRY);
    expect(guest.get64(ENTRY)).toBe(OLD);
    expect(guest.vcpu.get('rax')).toBe(0xdead_0007n);
    expect(guest.port.lastReply(0)).toBe(Reply.SKIP);
  });

  it('of the accessed bit happens and asks nobody [1.2.5]', () => {
    // bts qword [rbx], 5
    const guest = entryGuest('48 0f ba 2b 05');
    let calls = 0;
    guest.engine.hooks.page.set({
      gpa: ENTRY,
      length: 8,
      access: Access.WRITE,
      pagingStructure: true,
      callback: () => calls++,
    });
    guest.settle(ENTRY);
    expect(calls).toBe(0);
    expect(guest.get64(ENTRY)).toBe(OLD | 0x20n);
    expect(guest.engine.counters.irrelevantPageTableWrites).toBe(1);
  });

  it('through the self-map sets the accessed and dirty bits as the processor would, and asks once [P5.13] [P12.16]', () => {
    for (const [code, replace, expected] of [
      // mov [rbx], rax; or [rbx], 4; or [rbx], 4 with the bit taken out again
      ['48 89 03', false, 0x1007n],
      ['48 83 0b 04', false, 0x1067n],
      ['48 83 0b 04', true, 0x1003n],
    ] as const) {
      const index = 0x1ed;
      const entry = (PML4 + index * 8) as Gpa;
      const guest = new SyntheticGuest();
      guest.code(code);
      guest.put64(entry, 0x1003n);
      const i = BigInt(index);
      const va = ((0xffffn << 48n) | (i << 39n) | (i << 30n) | (i << 21n) | (i << 12n) | (i * 8n)) as Gva;
      guest.vcpu.set('rbx', va);
      guest.vcpu.set('rax', 0x1007n);
      const seen: bigint[] = [];
      guest.engine.hooks.page.set({
        gpa: entry,
        length: 8,
        access: Access.WRITE,
        pagingStructure: true,
        callback: (event) => {
          seen.push(event.pageTableWrite!.new);
          if (replace) {
            event.pageTableWrite!.replace(event.pageTableWrite!.new & ~4n);
          }
        },
      });
      for (let exit = 0; exit < 2; exit++) {
        guest.port.raiseViolation(0, { gpa: entry, gla: va, access: Access.WRITE, size: 8 });
        guest.engine.step(1);
      }
      expect(seen).toEqual([0x1007n]);
      expect(guest.get64(entry)).toBe(expected);
      expect(guest.engine.counters.emulationConflicts).toBe(0);
    }
  });

  it('of a single byte or word shows the whole entry [1.2.6]', () => {
    for (const [code, offset, expected] of [
      ['c6 03 07', 0, (OLD & ~0xffn) | 7n],
      ['66 c7 03 34 12', 6, (OLD & 0x0000_ffff_ffff_ffffn) | (0x1234n << 48n)],
      ['66 c7 03 34 12', 3, (OLD & ~(0xffffn << 24n)) | (0x1234n << 24n)],
      ['c7 03 78 56 34 12', 4, (OLD & 0xffff_ffffn) | (0x1234_5678n << 32n)],
    ] as const) {
      const guest = entryGuest(code);
      guest.vcpu.set('rbx', kernel(ENTRY + offset));
      const seen: bigint[] = [];
      guest.engine.hooks.page.set({
        gpa: ENTRY,
        length: 8,
        access: Access.WRITE,
        pagingStructure: true,
        callback: (event) => seen.push(event.pageTableWrite!.gpa === ENTRY ? event.pageTableWrite!.new : -1n),
      });
      guest.settle(ENTRY + offset);
      expect(guest.get64(ENTRY)).toBe(expected);
      if (seen.length > 0) {
        expect(seen).toEqual([expected]);
      }
    }
  });

  it('is asked about again when memory changed before the commit [P12.12]', () => {
    // or qword [rbx], 4
    const guest = entryGuest('48 83 0b 04');
    const seen: bigint[] = [];
    guest.engine.hooks.page.set({
      gpa: ENTRY,
      length: 8,
      access: Access.WRITE,
      pagingStructure: true,
      callback: (event) => {
        seen.push(event.pageTableWrite!.new);
        if (seen.length === 1) {
          guest.put64(ENTRY, OLD | 0x60n);
        }
      },
    });
    guest.settle(ENTRY);
    expect(seen).toEqual([OLD | 4n, OLD | 0x64n]);
    expect(guest.get64(ENTRY)).toBe(OLD | 0x64n);
    expect(guest.engine.counters.emulationConflicts).toBe(1);
  });

  it('of 32 bytes of a vector register is judged by value while XCR0 has AVX; of what no area tells it is blocked [P12.9]', () => {
    for (const [hex, xcr0, offset, answer] of [
      ['c5 fe 7f 0b', 7n, 24, 'asked'], // vmovdqu [rbx], ymm1
      ['c5 fe 7f 0b', 3n, 24, 'unknown'],
      ['62 f1 fe 48 7f 0b', 7n, 24, 'unknown'], // vmovdqu64 [rbx], zmm1
      ['62 e1 fe 08 7f 0b', 7n, 8, 'unknown'], // vmovdqu64 [rbx], xmm17
    ] as const) {
      const guest = entryGuest(hex);
      guest.vcpu.set('xcr0', 7n);
      const area = new Uint8Array(XSAVE_AREA.size);
      const view = new DataView(area.buffer);
      area[XSAVE_AREA.offset.xstateBv] = XStateComponent.SSE | XStateComponent.AVX;
      view.setBigUint64(XSAVE_AREA.offset.xmm + 16, 0x1111n, true);
      view.setBigUint64(XSAVE_AREA.offset.ymmHigh + 16 + 8, OLD | 4n, true);
      guest.port.writeXsaveArea(0, area);
      guest.vcpu.set('xcr0', xcr0);
      guest.vcpu.set('rbx', kernel(ENTRY - offset));
      const seen: bigint[] = [];
      guest.engine.hooks.page.set({
        gpa: ENTRY,
        length: 8,
        access: Access.WRITE,
        pagingStructure: true,
        callback: (event) => seen.push(event.pageTableWrite!.new),
      });
      guest.settle(ENTRY - offset);
      expect(seen, hex).toEqual(answer === 'asked' ? [OLD | 4n] : []);
      expect(guest.port.lastReply(0), hex).toBe(answer === 'asked' ? Reply.ALLOW_ONCE : Reply.SKIP);
      expect(guest.problems.map((problem) => problem.kind)).toEqual(
        answer === 'asked' ? [] : ['unknown-page-table-write'],
      );
    }
  });

  it('of a value that cannot be known is blocked, elsewhere on the page it is not', () => {
    for (const [offset, reply] of [
      [0, Reply.SKIP],
      [64, Reply.ALLOW_ONCE],
    ] as const) {
      // fxsave [rbx]
      const guest = entryGuest('0f ae 03');
      guest.vcpu.set('rbx', kernel(ENTRY + offset));
      guest.engine.hooks.page.set({
        gpa: ENTRY,
        length: 8,
        access: Access.WRITE,
        pagingStructure: true,
        callback: () => undefined,
      });
      guest.settle(ENTRY + offset);
      expect(guest.port.lastReply(0)).toBe(reply);
      expect(guest.problems.length).toBe(offset === 0 ? 1 : 0);
    }
  });

  it('across two entries asks about each and is left to the processor, or skipped [1.2.6] [P5.12] [P12.14]', () => {
    for (const deny of [false, true]) {
      // mov [rbx], rax at entry - 4
      const guest = entryGuest(STORE);
      guest.vcpu.set('rbx', kernel(ENTRY - 4));
      guest.vcpu.set('rax', 0xaaaa_aaa7_bbbb_bbbbn);
      const seen: bigint[] = [];
      guest.engine.hooks.page.set({
        gpa: (ENTRY - 8) as Gpa,
        length: 16,
        access: Access.WRITE,
        pagingStructure: true,
        callback: (event) => {
          seen.push(event.pageTableWrite!.new);
          if (deny && event.pageTableWrite!.gpa === ENTRY) {
            event.verdict = Verdict.NOT_ALLOWED;
          }
        },
      });
      const before = guest.get64(ENTRY - 8);
      guest.settle(ENTRY - 4);
      expect(seen).toEqual([(before & 0xffff_ffffn) | (0xbbbb_bbbbn << 32n), (OLD & ~0xffff_ffffn) | 0xaaaa_aaa7n]);
      expect(guest.port.lastReply(0)).toBe(deny ? Reply.SKIP : Reply.ALLOW_ONCE);
      expect(guest.get64(ENTRY)).toBe(OLD);
    }
  });

  it('of a repeated string instruction is decided element by element [P12.13]', () => {
    // rep stosq from the entry before; the hooked element is denied, the others happen
    const guest = entryGuest('f3 48 ab');
    guest.vcpu.set('rdi', kernel(ENTRY));
    guest.vcpu.set('rcx', 3n);
    guest.vcpu.set('rax', 0x9999_9007n);
    guest.engine.hooks.page.set({
      gpa: ENTRY,
      length: 16,
      access: Access.WRITE,
      pagingStructure: true,
      callback: (event) => {
        if (event.pageTableWrite!.gpa === ENTRY) {
          event.verdict = Verdict.NOT_ALLOWED;
        }
      },
    });
    guest.settle(ENTRY);
    expect(guest.port.lastReply(0)).toBe(Reply.RETRY);
    expect(guest.vcpu.get('rcx')).toBe(2n);
    expect(guest.vcpu.get('rip')).toBe(kernel(CODE));
    expect(guest.get64(ENTRY)).toBe(OLD);
    guest.settle(ENTRY + 8);
    expect(guest.get64(ENTRY + 8)).toBe(0x9999_9007n);
    expect(guest.vcpu.get('rcx')).toBe(1n);
    expect(guest.vcpu.get('rdi')).toBe(kernel(ENTRY + 16));
  });

  it('by movs whose source is not mapped gives the guest its page fault', () => {
    const guest = entryGuest('48 a5');
    guest.vcpu.set('rdi', kernel(ENTRY));
    guest.vcpu.set('rsi', kernel(DATA + 0x3000));
    guest.put64(leafEntry(DATA + 0x3000), 0n);
    guest.engine.hooks.page.set({
      gpa: ENTRY,
      length: 8,
      access: Access.WRITE,
      pagingStructure: true,
      callback: () => undefined,
    });
    guest.violate(ENTRY);
    guest.violate(ENTRY);
    expect(guest.port.injections).toEqual([{ index: 0, vector: 14, errorCode: 0, cr2: kernel(DATA + 0x3000) }]);
    expect(guest.get64(ENTRY)).toBe(OLD);
  });

  it('by the processor itself to a hooked entry is blocked', () => {
    const guest = entryGuest(STORE);
    guest.engine.hooks.page.set({
      gpa: ENTRY,
      length: 8,
      access: Access.WRITE,
      pagingStructure: true,
      callback: () => undefined,
    });
    guest.violate(ENTRY, Access.WRITE, ExitCause.EVENT_DELIVERY);
    expect(guest.port.lastReply(0)).toBe(Reply.SKIP);
  });
});

describe('the engine', () => {
  it('tells the backend rights only when they change, and flushes once per exit', () => {
    const guest = storeGuest();
    const range = { gpa: DATA as Gpa, length: 4096, access: Access.WRITE };
    const hooks = [1, 2, 3].map(() => guest.engine.hooks.page.set({ ...range, callback: () => undefined }));
    expect(guest.port.pageAccessSets).toBe(1);
    guest.engine.hooks.page.set({
      ...range,
      callback: () => {
        for (const hook of hooks) {
          hook.remove();
        }
        for (let page = 1; page <= 4; page++) {
          guest.engine.hooks.page.set({ ...range, gpa: (DATA + page * 4096) as Gpa, callback: () => undefined });
        }
      },
    });
    expect(guest.port.pageAccessSets).toBe(1);
    guest.settle(DATA + 0x100);
    // The data page, the code page and its four tables, four more pages: one call each. Flushed before the run, for the code page and each
    // table before they are read, before the instruction is decided about, and once more.
    expect(guest.port.pageAccessSets).toBe(10);
    expect(guest.port.pageAccessFlushes).toBe(8);
  });

  it('keeps a removed hook from being called at once, and lifts the rights before the reply [1.2.9] [P4.3] [P4.13] [P18.5]', () => {
    const guest = storeGuest();
    const range = { gpa: DATA as Gpa, length: 4096, access: Access.WRITE };
    let calls = 0;
    const order: string[] = [];
    guest.engine.hooks.page.set({
      ...range,
      callback: (event) => {
        second.remove();
        second.remove();
        event.removeHook = true;
        order.push(`in callback ${guest.port.getPageAccess((DATA >> 12) as never)}`);
      },
    });
    const second = guest.engine.hooks.page.set({ ...range, callback: () => calls++ });
    guest.engine.beforeReply({
      name: 'look',
      run: () => order.push(`stage ${guest.port.getPageAccess((DATA >> 12) as never)}`),
    });
    guest.violate(DATA + 0x100);
    order.length = 0;
    guest.violate(DATA + 0x100);
    expect(calls).toBe(0);
    expect(order).toEqual(['in callback 5', 'stage 7']);
    // What is left guards the code page and the tables that lead to it.
    expect(guest.engine.hooks.page.count).toBe(5);
  });

  it('answers an exit whose callback throws with the fallback verdict and reports it [1.2.2]', () => {
    for (const [fallback, reply] of [
      ['allow', Reply.ALLOW_ONCE],
      ['block', Reply.SKIP],
    ] as const) {
      const guest = new SyntheticGuest({ fallback });
      guest.code(STORE);
      guest.vcpu.set('rbx', kernel(DATA));
      guest.engine.hooks.page.set({
        gpa: DATA as Gpa,
        length: 8,
        access: Access.WRITE,
        callback: () => {
          throw new Error('broken');
        },
      });
      guest.settle(DATA);
      expect(guest.port.lastReply(0)).toBe(reply);
      expect(guest.problems.map((problem) => problem.kind)).toEqual(['callback']);
    }
  });

  it('gives every right back when it is closed with hooks set', () => {
    const guest = storeGuest();
    for (const access of [Access.READ, Access.WRITE, Access.EXECUTE]) {
      guest.engine.hooks.page.set({ gpa: DATA as Gpa, length: 8, access, callback: () => undefined });
    }
    guest.settle(DATA + 0x100);
    expect(guest.port.getPageAccess((DATA >> 12) as never)).toBe(Access.NONE);
    const sets: number[] = [];
    const setPageAccess = guest.port.setPageAccess.bind(guest.port);
    guest.port.setPageAccess = (frame, access) => {
      sets.push(frame, access);
      setPageAccess(frame, access);
    };
    guest.engine.close();
    expect(sets).toEqual(expect.arrayContaining([DATA >> 12, Access.ALL, CODE >> 12, Access.ALL]));
    expect(() => guest.engine.step(1)).toThrow(CoreHooksError);
    guest.engine.close();
  });

  it('calls control register hooks, with the exit on exactly while there is one', () => {
    const guest = storeGuest();
    const exit = { kind: 'cr-write', register: 3 } as const;
    const seen: bigint[] = [];
    const hook = guest.engine.hooks.cr.set(3, (event) => {
      seen.push(event.oldValue, event.newValue);
      event.verdict = Verdict.NOT_ALLOWED;
    });
    const other = guest.engine.hooks.cr.set(3, () => hook.remove());
    expect(guest.port.isExitOn(exit)).toBe(true);
    guest.port.raiseRegisterWrite(0, ExitKind.CR_WRITE, 3, 0x1000n, 0x2000n);
    guest.engine.step(1);
    expect(seen).toEqual([0x1000n, 0x2000n]);
    expect(guest.port.lastReply(0)).toBe(Reply.SKIP);
    expect(guest.port.isExitOn(exit)).toBe(true);
    other.remove();
    guest.port.raiseRegisterWrite(0, ExitKind.CR_WRITE, 3, 0x1000n, 0x2000n);
    guest.engine.step(1);
    expect(guest.port.lastReply(0)).toBe(Reply.ALLOW_ONCE);
    expect(guest.port.isExitOn(exit)).toBe(false);
  });

  it('calls tick hooks with the guest time and survives one that throws [1.2.2] [1.2.8 timer]', () => {
    const guest = storeGuest();
    const times: number[] = [];
    guest.engine.hooks.tick.set(() => {
      throw new Error('broken');
    });
    guest.engine.hooks.tick.set((event) => times.push(event.time));
    guest.port.time = 3_000_000;
    guest.port.raiseTick();
    expect(guest.engine.step(1)).toBe('exit');
    expect(times).toEqual([3_000_000]);
    expect(guest.engine.time).toBe(3_000_000);
    expect(guest.problems).toHaveLength(1);
    expect(guest.engine.step(1)).toBe('idle');
  });

  it('says why the guest stopped', () => {
    const guest = storeGuest();
    guest.port.raiseShutdown(ShutdownReason.TRIPLE_FAULT);
    expect(guest.engine.step(1)).toBe('shutdown');
    expect(guest.engine.shutdownReason).toBe(ShutdownReason.TRIPLE_FAULT);
    expect(guest.engine.step(1)).toBe('shutdown');
  });

  it('does not cache user code of an address space that nobody knows', () => {
    const guest = storeGuest();
    guest.vcpu.set('rip', BigInt(CODE));
    guest.engine.addressSpaces = { systemCr3: cr3(0x5000n), isKnown: () => false };
    guest.engine.hooks.page.set({ gpa: DATA as Gpa, length: 4096, access: Access.WRITE, callback: () => undefined });
    expect(guest.settle(DATA + 0x100)).toBe(0);
    expect(guest.port.getPageAccess((CODE >> 12) as never)).toBe(Access.ALL);
    guest.engine.addressSpaces = { systemCr3: cr3(0x5000n), isKnown: () => true };
    expect(guest.settle(DATA + 0x100)).toBe(1);
  });

  it('refuses hooks that cannot be [P4.4]', () => {
    const guest = storeGuest();
    const set = (gpa: number, length: number, access: Access) => () =>
      guest.engine.hooks.page.set({ gpa: gpa as Gpa, length, access, callback: () => undefined });
    expect(set(DATA, 0, Access.READ)).toThrow(expect.objectContaining({ code: 'ERR_CORE_HOOKS_RANGE' }));
    expect(set(DATA + 4090, 7, Access.READ)).toThrow(expect.objectContaining({ code: 'ERR_CORE_HOOKS_RANGE' }));
    expect(set(DATA, 1, Access.READ | Access.WRITE)).toThrow(
      expect.objectContaining({ code: 'ERR_CORE_HOOKS_ACCESS' }),
    );
    expect(set(2 ** 40, 8, Access.WRITE)).toThrow();
    const callback = undefined as never;
    const { hooks } = guest.engine;
    const space = cr3(BigInt(PML4));
    for (const without of [
      () => hooks.page.set({ gpa: DATA as Gpa, length: 8, access: Access.WRITE, callback }),
      () => hooks.pageTable.set({ gpa: DATA as Gpa, entrySize: 8, callback }),
      () => hooks.virtual.set({ cr3: space, va: kernel(DATA), length: 8, access: Access.READ, callback }),
      () => hooks.regions.create({ cr3: space }).hook({ va: kernel(DATA), length: 8, access: Access.READ, callback }),
    ]) {
      expect(without).toThrow(expect.objectContaining({ code: 'ERR_CORE_HOOKS_CALLBACK' }));
    }
    guest.engine.step(0);
    expect([hooks.page.count, hooks.translation.count, hooks.pageTable.count]).toEqual([0, 0, 0]);
  });
});
