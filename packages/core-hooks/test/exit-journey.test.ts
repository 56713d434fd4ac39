import { Access, type Cr3, DescriptorTable, ExitKind, type Gpa, type Gva, Reply, Verdict } from '@introd/abi';
import { createMockPort, SyntheticPort } from '@introd/glue/testing';
import { describe, expect, it } from 'vitest';
import { type AccessEvent, Engine, type ExitHook } from '../src/index.js';
import { attackGuest } from './attacks/attack-guest.js';
import { CODE, DATA, kernel, leafEntry, PML4, STACK } from './guest-layout.js';
import { get64, put64 } from './sim-guest.js';
import { SyntheticGuest } from './synthetic-guest.js';

/** mov [rbx], rax */
const STORE = '48 89 03';
const USER_STACK = 0x60;

function hook(guest: { engine: Engine }, gpa: number, access: Access, callback: (event: AccessEvent) => void): void {
  guest.engine.hooks.page.set({ gpa: gpa as Gpa, length: 8, access, callback });
}

function guestAt(code: string, options: ConstructorParameters<typeof SyntheticGuest>[1] = {}): SyntheticGuest {
  const guest = new SyntheticGuest({}, options);
  guest.code(code);
  guest.vcpu.set('rbx', kernel(DATA));
  return guest;
}

describe('an exit', () => {
  it('is counted by its kind, and shows the record of the VCPU that made it [1.2.2] [1.2.4-1]', () => {
    const guest = guestAt(STORE, { vcpus: 2 });
    const { counters, hooks } = guest.engine;
    const seen: unknown[] = [];
    hook(guest, DATA, Access.WRITE, (event) => seen.push(event.vcpuIndex, event.vcpu.get('rax')));
    hooks.cr.set(4, (event) => seen.push(event.vcpuIndex, event.vcpu.get('rax')));
    for (const index of [0, 1]) {
      const vcpu = guest.port.vcpu(index);
      vcpu.set('rax', BigInt(index) + 0x100n);
      vcpu.set('rbx', kernel(DATA));
    }
    for (const index of [0, 0, 1]) {
      guest.port.raiseViolation(index, { gpa: DATA as Gpa, gla: kernel(DATA), access: Access.WRITE, size: 8 });
      guest.engine.step(1);
    }
    guest.port.raiseRegisterWrite(1, ExitKind.CR_WRITE, 4, 0n, 1n);
    guest.engine.step(1);
    expect(seen).toEqual([0, 0x100n, 1, 0x101n, 1, 0x101n]);
    expect(counters).toMatchObject({ exits: 4, eptViolations: 3, crWrites: 1, hookCalls: 3 });
  });

  it('of a record that there is not is told, and the next one is handled [1.2.2]', () => {
    const guest = guestAt(STORE);
    hook(guest, DATA, Access.WRITE, () => undefined);
    const next = guest.port.next.bind(guest.port);
    guest.port.next = () => 7;
    expect(guest.engine.step(1)).toBe('idle');
    expect(guest.problems.map(({ kind }) => kind)).toEqual(['backend']);
    guest.port.next = next;
    guest.settle(DATA);
    expect(guest.port.lastReply(0)).toBe(Reply.ALLOW_ONCE);
  });

  it('is handled before the next one is taken, whatever its callback tries [1.2.2]', () => {
    const guest = guestAt(STORE, { vcpus: 2 });
    const seen: unknown[] = [];
    hook(guest, DATA, Access.WRITE, (event) => {
      if (event.vcpuIndex === 0) {
        guest.port.raiseRegisterWrite(1, ExitKind.CR_WRITE, 4, 0n, 1n);
        guest.engine.step(1);
      }
    });
    guest.engine.hooks.cr.set(4, (event) => {
      seen.push(event.vcpuIndex);
    });
    guest.settle(DATA);
    expect(seen).toEqual([]);
    expect(guest.problems.map(({ kind, cause }) => [kind, (cause as { code: string }).code])).toEqual([
      ['callback', 'ERR_CORE_HOOKS_REENTERED'],
    ]);
    expect(guest.engine.step(1)).toBe('exit');
    expect([seen, guest.port.lastReply(0), guest.port.lastReply(1)]).toEqual([[1], Reply.ALLOW_ONCE, Reply.ALLOW_ONCE]);
  });

  it('may be the last: a callback closes the engine, and every right is given back [1.2.2]', () => {
    const guest = guestAt(STORE);
    const { port, engine } = guest;
    const told = new Map<number, Access>();
    const setPageAccess = port.setPageAccess.bind(port);
    port.setPageAccess = (frame, access) => {
      told.set(frame, access);
      setPageAccess(frame, access);
    };
    hook(guest, DATA, Access.WRITE, () => engine.close());
    guest.violate(DATA);
    expect([...told.values()]).toContain(Access.READ | Access.EXECUTE);
    guest.violate(DATA);
    expect(new Set(told.values())).toEqual(new Set([Access.ALL]));
    expect(() => engine.step(1)).toThrow(expect.objectContaining({ code: 'ERR_CORE_HOOKS_CLOSED' }));
  });

  it('leaves nothing for the next one: bytes that were shown once, a value that was put in place of a write [1.2.4-5]', () => {
    const read = attackGuest('mov rax, [rbx]\nmov rcx, [rbx]');
    put64(read.machine, DATA, 0x1111n);
    let reads = 0;
    hook(read, DATA, Access.READ, (event) => {
      if (reads++ === 0) {
        event.overlay(DATA as Gpa, new Uint8Array(8).fill(0x22));
      }
    });
    read.run(50);
    expect([read.vcpu.get('rax'), read.vcpu.get('rcx')]).toEqual([0x2222_2222_2222_2222n, 0x1111n]);
    read.close();
    const write = attackGuest('mov [rbx], rax\nmov [rbx+8], rax');
    write.vcpu.set('rax', 0x5003n);
    write.engine.hooks.page.set({
      gpa: DATA as Gpa,
      length: 16,
      access: Access.WRITE,
      pagingStructure: true,
      callback: ({ pageTableWrite }) => {
        if (pageTableWrite!.gpa === DATA) {
          pageTableWrite!.replace(0x6001n);
        }
      },
    });
    write.run(50);
    expect([get64(write.machine, DATA), get64(write.machine, DATA + 8)]).toEqual([0x6001n, 0x5003n]);
    write.close();
  });

  it('whose hook wants to show bytes and names none gets those of no earlier exit [1.2.4-5] [1.2.4-13]', () => {
    // mov rax, [rbx]
    const guest = guestAt('48 8b 03');
    let calls = 0;
    hook(guest, DATA, Access.READ, (event) => {
      if (calls++ === 0) {
        event.overlay(DATA as Gpa, new Uint8Array(8).fill(0x22));
      }
      event.verdict = Verdict.ALLOWED_PATCHED;
    });
    guest.settle(DATA, Access.READ);
    expect(guest.port.lastReply(0)).toBe(Reply.SUPPLY_READ);
    guest.settle(DATA, Access.READ);
    expect([calls, guest.port.lastReply(0)]).toEqual([2, Reply.ALLOW_ONCE]);
    expect(guest.problems.map(({ kind }) => kind)).toEqual(['callback']);
  });

  it('that reports a read along with a store asks no read hooks, and one that reads and writes asks both [1.2.4-7]', () => {
    for (const [code, expected] of [
      [STORE, ['write']],
      // add [rbx], rax
      ['48 01 03', ['read', 'write']],
    ] as const) {
      const guest = guestAt(code);
      const asked: string[] = [];
      hook(guest, DATA, Access.WRITE, () => asked.push('write'));
      hook(guest, DATA, Access.READ, () => asked.push('read'));
      guest.settle(DATA, Access.READ | Access.WRITE);
      expect(asked).toEqual(expected);
      expect(guest.port.lastReply(0)).toBe(Reply.ALLOW_ONCE);
    }
  });
});

describe('an address that an exit touches', () => {
  it('is where the hardware says on the page that faulted, and where the tables say elsewhere [1.2.4-11]', () => {
    // push [rbx]: the faulting page has been mapped elsewhere since, the stack too
    const guest = guestAt('ff 33');
    for (const page of [DATA, STACK - 0x1000]) {
      guest.put64(leafEntry(page), BigInt(page + 0x8_0000) | 3n);
    }
    const asked: number[] = [];
    for (const page of [DATA, DATA + 0x8_0000]) {
      hook(guest, page, Access.READ, ({ gpa }) => asked.push(gpa));
    }
    for (const page of [STACK, STACK + 0x8_0000]) {
      hook(guest, page - 8, Access.WRITE, ({ gpa }) => asked.push(gpa));
    }
    guest.settle(DATA, Access.READ);
    expect(asked).toEqual([DATA, STACK + 0x8_0000 - 8]);
  });
});

describe('the hooks of one exit', () => {
  it('are asked about execution, reading and writing in this order; denial of the first is one of all [1.2.4-10] [1.2.5]', () => {
    for (const denied of [Access.EXECUTE, Access.NONE]) {
      // add [rip+0xf9], rax: its operand is on its own page
      const guest = guestAt('48 01 05 f9 00 00 00');
      const asked: Access[] = [];
      for (const access of [Access.WRITE, Access.READ, Access.EXECUTE]) {
        guest.engine.hooks.page.set({
          gpa: CODE as Gpa,
          length: 4096,
          access,
          callback: (event) => {
            asked.push(event.access);
            event.verdict = event.access === denied ? Verdict.NOT_ALLOWED : Verdict.ALLOWED;
          },
        });
      }
      guest.vcpu.set('rax', 5n);
      guest.settle(CODE, Access.EXECUTE);
      expect(asked).toEqual([Access.EXECUTE, Access.READ, Access.WRITE]);
      // The page is guarded for its code, so the engine makes the store.
      expect(guest.port.lastReply(0)).toBe(denied === Access.EXECUTE ? Reply.SKIP : Reply.RETRY);
      expect(guest.get64(CODE + 0x100)).toBe(denied === Access.EXECUTE ? 0n : 5n);
    }
  });

  it('are skipped for one kind of access, the other kind is asked [1.2.5]', () => {
    // add [rbx], rax
    const guest = guestAt('48 01 03');
    const asked: string[] = [];
    hook(guest, DATA, Access.READ, (event) => {
      asked.push('read');
      event.skipOthers = true;
    });
    hook(guest, DATA, Access.READ, () => asked.push('second read'));
    hook(guest, DATA, Access.WRITE, () => asked.push('write'));
    guest.settle(DATA, Access.READ | Access.WRITE);
    expect(asked).toEqual(['read', 'write']);
  });

  it('give the strongest of their verdicts, whoever says it first [1.2.3]', () => {
    const shown = (event: AccessEvent): void => {
      event.overlay(DATA as Gpa, new Uint8Array(8));
    };
    const verdicts = [
      { verdict: Verdict.ALLOWED, reply: Reply.ALLOW_ONCE },
      { verdict: Verdict.ALLOWED_VIRTUAL, reply: Reply.RETRY },
      { verdict: Verdict.ALLOWED_PATCHED, reply: Reply.SUPPLY_READ },
      { verdict: Verdict.NOT_ALLOWED, reply: Reply.SKIP },
      { verdict: Verdict.RETRY, reply: Reply.RETRY },
    ];
    for (const [at, one] of verdicts.entries()) {
      for (const [number, other] of verdicts.entries()) {
        // mov rax, [rbx]
        const guest = guestAt('48 8b 03');
        let calls = 0;
        for (const { verdict } of [one, other]) {
          hook(guest, DATA, Access.READ, (event) => {
            calls++;
            event.verdict = verdict;
            if (verdict === Verdict.ALLOWED_PATCHED) {
              shown(event);
            }
          });
        }
        guest.violate(DATA, Access.READ);
        guest.violate(DATA, Access.READ);
        expect(calls).toBe(2);
        expect(guest.engine.lastExit.verdict).toBe(Math.max(one.verdict, other.verdict));
        expect(guest.port.lastReply(0)).toBe(verdicts[Math.max(at, number)]!.reply);
        expect(guest.problems).toEqual([]);
      }
    }
  });

  it('are not called while a repeated instruction is only probed, and the switch goes off behind it [1.2.4-8] [1.2.5]', () => {
    // rep movsb, then mov [rbx], rax
    const guest = guestAt('f3 a4 48 89 03');
    const exit = { kind: 'rep-iterations' } as const;
    guest.vcpu.set('rsi', kernel(DATA + 0x2000));
    guest.vcpu.set('rdi', kernel(DATA + 0x100));
    guest.vcpu.set('rcx', 0x80n);
    let calls = 0;
    hook(guest, DATA + 0x140, Access.WRITE, () => calls++);
    hook(guest, DATA + 0x180, Access.WRITE, () => calls++);
    guest.violate(DATA + 0x100, Access.WRITE, undefined, 1);
    expect(guest.engine.lastExit.reason).toBe('retry-not-cached');
    guest.violate(DATA + 0x100, Access.WRITE, undefined, 1);
    expect(guest.engine.lastExit).toMatchObject({ reason: 'retry-rep', hookCalls: 0, reply: Reply.RETRY });
    expect(guest.port.isExitOn(exit)).toBe(true);
    guest.violate(DATA + 0x100, Access.WRITE, undefined, 1);
    expect(guest.engine.lastExit).toMatchObject({ reason: 'hooks', hookCalls: 0, reply: Reply.ALLOW_ONCE });
    guest.vcpu.set('rdi', kernel(DATA + 0x140));
    guest.vcpu.set('rcx', 0x40n);
    guest.violate(DATA + 0x140, Access.WRITE, undefined, 1);
    expect(calls).toBe(1);
    guest.vcpu.set('rip', kernel(CODE + 2));
    guest.settle(DATA);
    expect(guest.port.isExitOn(exit)).toBe(false);
  });

  it('that show bytes: to reads only, and only inside the access [1.2.6] [P12.15]', () => {
    // add [rbx], rax
    const guest = guestAt('48 01 03');
    const results: unknown[] = [];
    const bytes = new Uint8Array(8).fill(0x22);
    hook(guest, DATA, Access.WRITE, (event) => results.push('write', event.overlay(DATA as Gpa, bytes), event.verdict));
    hook(guest, DATA, Access.READ, (event) => {
      results.push('read', event.overlay((DATA + 8) as Gpa, bytes), event.overlay((DATA - 8) as Gpa, bytes));
      results.push(event.verdict);
    });
    guest.settle(DATA, Access.READ | Access.WRITE);
    expect(results).toEqual(['read', false, false, Verdict.ALLOWED, 'write', false, Verdict.ALLOWED]);
    expect(guest.port.lastReply(0)).toBe(Reply.ALLOW_ONCE);
  });
});

describe('a store of user code over the end of a page', () => {
  const PAGE = DATA + 0x1000;

  for (const { name, entry, error, allowed } of [
    { name: 'into one that is not there', entry: 0n, error: 6, allowed: false },
    { name: 'into one that it may not write', entry: BigInt(PAGE) | 5n, error: 7, allowed: false },
    { name: 'into one of the kernel', entry: BigInt(PAGE) | 3n, error: 7, allowed: false },
    { name: 'into one that it may write, and the hooks are asked', entry: BigInt(PAGE) | 7n, error: 0, allowed: true },
  ]) {
    it(`${name}${allowed ? '' : ' gives it the page fault, and no hook is asked'} [1.2.7]`, () => {
      const guest = guestAt(STORE);
      guest.vcpu.set('rip', BigInt(CODE));
      guest.vcpu.set32('ssAttributes', guest.vcpu.get32('ssAttributes') | USER_STACK);
      guest.vcpu.set('rbx', BigInt(PAGE) - 4n);
      let asked = 0;
      hook(guest, PAGE - 8, Access.WRITE, () => asked++);
      hook(guest, PAGE, Access.WRITE, () => asked++);
      guest.put64(leafEntry(PAGE), entry);
      for (let exit = 0; exit < 2; exit++) {
        const gla = (BigInt(PAGE) - 4n) as Gva;
        guest.port.raiseViolation(0, { gpa: (PAGE - 4) as Gpa, gla, access: Access.WRITE, size: 8 });
        guest.engine.step(1);
      }
      expect(asked).toBe(allowed ? 2 : 0);
      expect(guest.port.injections).toEqual(
        allowed ? [] : [{ index: 0, vector: 14, errorCode: error, cr2: BigInt(PAGE) }],
      );
      expect(guest.port.lastReply(0)).toBe(allowed ? Reply.ALLOW_ONCE : Reply.RETRY);
    });
  }
});

describe('an instruction on a descriptor table register', () => {
  function descriptorExit(guest: SyntheticGuest, flags: number): void {
    for (let exit = 0; exit < 2; exit++) {
      guest.vcpu.set32('exitKind', ExitKind.DESCRIPTOR_TABLE);
      guest.vcpu.set32('exitRegister', flags);
      guest.port.raise(0);
      guest.engine.step(1);
    }
  }

  it('without memory happens, what is none is taken again, and neither is asked about [1.2.8 DTR]', () => {
    for (const [code, reply] of [
      // sldt eax; nop
      ['0f 00 c0', Reply.ALLOW_ONCE],
      ['90', Reply.RETRY],
    ] as const) {
      const guest = guestAt(code);
      let asked = 0;
      guest.engine.hooks.descriptorTable.set(DescriptorTable.IDTR | DescriptorTable.WRITE, () => asked++);
      descriptorExit(guest, DescriptorTable.LDTR | DescriptorTable.READ);
      expect([guest.port.lastReply(0), asked]).toEqual([reply, 0]);
    }
  });

  for (const { name, code, offset, error } of [
    { name: 'SIDT over the end of a page', code: '0f 01 0b', offset: 0xff8, error: 2 },
    { name: 'LIDT over the end of a page', code: '0f 01 1b', offset: 0xff8, error: 0 },
    { name: 'LIDT from a page', code: '0f 01 1b', offset: 0x1000, error: 0 },
  ]) {
    it(`${name} that is not mapped gives the guest its page fault, and its twin is asked about [1.2.8 DTR]`, () => {
      for (const mapped of [false, true]) {
        const guest = guestAt(code);
        const page = DATA + 0x1000;
        guest.vcpu.set('rbx', kernel(DATA + offset));
        guest.vcpu.set('idtBase', kernel(STACK));
        guest.put64(leafEntry(page), mapped ? BigInt(page) | 3n : 0n);
        let asked = 0;
        hook(guest, page, Access.WRITE, () => asked++);
        guest.engine.hooks.descriptorTable.set(DescriptorTable.IDTR | DescriptorTable.WRITE, () => asked++);
        const access = error === 2 ? DescriptorTable.READ : DescriptorTable.WRITE;
        descriptorExit(guest, DescriptorTable.IDTR | access);
        expect(asked).toBe(mapped ? 1 : 0);
        expect(guest.port.injections).toEqual(
          mapped ? [] : [{ index: 0, vector: 14, errorCode: error, cr2: kernel(page) }],
        );
        expect(guest.problems).toEqual([]);
      }
    });
  }
});

describe('other exits', () => {
  it('of an INT3 that is not there any more is taken again, of one that is there is the guest\u2019s own [1.2.8 INT3]', () => {
    for (const [bytes, reply] of [
      ['90', Reply.RETRY],
      ['cc', Reply.ALLOW_ONCE],
      ['cd 03', Reply.ALLOW_ONCE],
    ] as const) {
      const guest = guestAt(bytes);
      guest.engine.hooks.breakpoint.set({ callback: () => undefined });
      guest.vcpu.set32('exitKind', ExitKind.BREAKPOINT);
      guest.port.raise(0);
      guest.engine.step(1);
      expect([guest.port.lastReply(0), guest.engine.lastExit.reason]).toEqual([reply, 'not-claimed']);
    }
  });

  it('of an event that lost against another tells that one, and the guest goes on [1.2.8 injection]', () => {
    const guest = guestAt(STORE);
    const told: unknown[] = [];
    guest.engine.hooks.injected.set(({ vcpuIndex, vector, cr2 }) => told.push(vcpuIndex, vector, cr2));
    guest.port.inject(0, 14, 4, 0x1234n);
    guest.port.reportInjection(0, 2, 0, 0n);
    guest.engine.step(1);
    expect([told, guest.port.lastReply(0)]).toEqual([[0, 2, 0n], Reply.RETRY]);
    guest.port.inject(0, 14, 4, 0x1234n);
    guest.port.reportInjection(0, 14, 4, 0x1234n);
    guest.engine.step(1);
    expect(told.slice(3)).toEqual([0, 14, 0x1234n]);
  });

  it('of a kind that nobody hooked has the guest do what it would without us [1.2.8 MSR] [1.2.8 CR] [1.2.8 XCR]', () => {
    const guest = guestAt(STORE);
    const kinds = [ExitKind.MSR_WRITE, ExitKind.CR_WRITE, ExitKind.XCR_WRITE] as const;
    for (const kind of kinds) {
      guest.port.raiseRegisterWrite(0, kind, 4, 1n, 2n);
      guest.engine.step(1);
      expect(guest.port.lastReply(0)).toBe(Reply.ALLOW_ONCE);
    }
    expect(guest.engine.counters.hookCalls).toBe(0);
  });
});

describe('before the reply', () => {
  it('what a callback removed goes in order: hooks on memory, the register exits, the stages, the rights [1.2.4-14] [1.2.9] [P8.10]', () => {
    const inner = new SyntheticGuest();
    const mock = createMockPort(inner.port);
    const engine = new Engine(mock.port);
    const cr3 = BigInt(PML4) as Cr3;
    inner.code(STORE);
    inner.vcpu.set('rbx', kernel(DATA));
    const callback = (): void => undefined;
    const va = kernel(STACK);
    const object = engine.hooks.regions.create({ cr3 });
    object.hook({ va, length: 0x2000, access: Access.READ, callback });
    const removable: { remove(): void }[] = [
      engine.hooks.cr.set(3, callback),
      engine.hooks.page.set({ gpa: 0x7_0000 as Gpa, length: 1, access: Access.WRITE, callback }),
      engine.hooks.pageTable.set({ gpa: 0x7_1000 as Gpa, entrySize: 8, callback }),
      engine.hooks.translation.set({ cr3, va }),
      engine.hooks.virtual.set({ cr3, va, length: 8, access: Access.EXECUTE, callback }),
      object,
    ];
    const raise = (): void => {
      inner.port.raiseViolation(0, { gpa: DATA as Gpa, gla: kernel(DATA), access: Access.WRITE, size: 8 });
      engine.step(1);
    };
    let before = 0;
    engine.hooks.page.set({
      gpa: DATA as Gpa,
      length: 8,
      access: Access.WRITE,
      callback: () => {
        for (const one of removable) {
          one.remove();
        }
        before = mock.calls().length;
      },
    });
    const { hooks } = engine;
    let stage = 0;
    let left: number[] = [];
    engine.beforeReply({
      name: 'look',
      run: () => {
        stage = mock.calls().length;
        left = [hooks.regions.count, hooks.virtual.count];
      },
    });
    raise();
    raise();
    const operations = mock.calls().map(({ operation }) => operation);
    const [removals, rest] = [operations.slice(before, stage), operations.slice(stage)];
    expect([...new Set(removals.filter((name) => name.startsWith('set')))]).toEqual(['setPageAccess', 'setExit']);
    expect(removals.lastIndexOf('setPageAccess')).toBeLessThan(removals.indexOf('setExit'));
    expect(removals).not.toContain('flushPageAccess');
    expect(rest.filter((name) => name === 'flushPageAccess' || name === 'reply')).toEqual(['flushPageAccess', 'reply']);
    expect(left).toEqual([0, 0]);
    engine.close();
  });

  it('nothing is done where nothing was changed, nor without an exit [P8.11] [P10.10]', () => {
    const inner = new SyntheticGuest();
    const mock = createMockPort(inner.port);
    const engine = new Engine(mock.port);
    inner.code(STORE);
    inner.vcpu.set('rbx', kernel(DATA));
    engine.hooks.page.set({ gpa: DATA as Gpa, length: 8, access: Access.WRITE, callback: () => undefined });
    engine.hooks.cr.set(4, () => undefined);
    const raise = (): void => {
      inner.port.raiseViolation(0, { gpa: DATA as Gpa, gla: kernel(DATA), access: Access.WRITE, size: 8 });
      engine.step(1);
    };
    raise();
    raise();
    const before = mock.calls().length;
    raise();
    expect(engine.step(0)).toBe('idle');
    const operations = mock
      .calls()
      .slice(before)
      .map(({ operation }) => operation);
    expect(operations.filter((name) => /^(set|flush|pause|resume|write)/.test(name))).toEqual([]);
    expect(operations).toContain('reply');
    engine.close();
  });
});

describe('a register hook', () => {
  it('that is removed while its exit is waiting is not called for it [P10.3]', () => {
    const port = new SyntheticPort();
    const engine = new Engine(port);
    let calls = 0;
    const set = (): ExitHook =>
      engine.hooks.cr.set(4, (event) => {
        calls++;
        event.verdict = Verdict.NOT_ALLOWED;
      });
    const hooked = set();
    const exit = (): Reply | undefined => {
      port.raiseRegisterWrite(0, ExitKind.CR_WRITE, 4, 0n, 1n);
      engine.step(1);
      return port.lastReply(0);
    };
    expect([exit(), calls]).toEqual([Reply.SKIP, 1]);
    port.raiseRegisterWrite(0, ExitKind.CR_WRITE, 4, 0n, 1n);
    hooked.remove();
    engine.step(1);
    expect([port.lastReply(0), calls, port.isExitOn({ kind: 'cr-write', register: 4 })]).toEqual([
      Reply.ALLOW_ONCE,
      1,
      false,
    ]);
    engine.close();
  });
});
