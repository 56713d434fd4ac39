import { type Gpa, type Gva, PAGE_SIZE } from '@introd/abi';
import { createMockPort } from '@introd/glue/testing';
import { describe, expect, it } from 'vitest';
import { type DetourCall, Engine } from '../src/index.js';
import { createCodeImages } from '../src/testing.js';
import {
  BY_VMCALL,
  CALLER,
  CR3,
  callTo,
  DetourGuest,
  descriptor,
  FUNCTION,
  PLAIN,
  SLACK,
  SUM,
  TEXT_SIZE,
} from './detour-guest.js';
import { CODE, DATA, kernel, leafEntry, STACK } from './guest-layout.js';
import { code, get64, microMachine, prepare, put64 } from './sim-guest.js';

const bytesOf = (hex: string): Uint8Array => Uint8Array.from(code(hex));

describe('a detoured function', () => {
  it('reads as ever, and runs through handler, hypercall and moved instructions back into itself [P15.1]', () => {
    const caller = `48c7c11e000000 48c7c20c000000 ${callTo(CODE + 14, FUNCTION)} 48bb0004010000 80ffff 488b33 488b7b08 f4`;
    const guest = new DetourGuest({ caller });
    const before = guest.codePages;
    const seen: unknown[] = [];
    const detour = guest.detour({
      callback: (call) => seen.push([call.vcpu.rip, call.argument(0), call.argument(1)]),
    });
    expect(guest.physical(FUNCTION, 1)).toEqual(bytesOf('e9'));
    expect(guest.physical(SLACK, 3)).toEqual(bytesOf('cc9090'));
    expect(guest.physical(SLACK + 3, 5)).toEqual(bytesOf('48895c2408'));
    expect(Buffer.compare(guest.seen(CODE, 2 * PAGE_SIZE), before)).toBe(0);
    guest.run(1000);
    expect(seen).toEqual([[kernel(SLACK), 30n, 12n]]);
    expect(guest.rax).toBe(42n);
    // mov rsi, [function]; mov rdi, [function + 8]: what the guest reads.
    const original = Buffer.from(before).subarray(FUNCTION - CODE);
    expect(guest.vcpu.get('rsi')).toBe(original.readBigUInt64LE(0));
    expect(guest.vcpu.get('rdi')).toBe(original.readBigUInt64LE(8));
    expect(detour.hits).toBe(1);
    expect(guest.problems).toEqual([]);
    expect(guest.engine.port.pauseCount).toBe(0);
  });

  it('does the same whatever its first instructions are: 5 to 15 bytes, CALL, RIP-relative, all near branches [P15.2]', () => {
    const helper = CODE + 0x600;
    const at = (offset: number): number => FUNCTION + offset;
    const jcc = (condition: number): string => {
      const bytes = Buffer.alloc(6);
      bytes[0] = 0x0f;
      bytes[1] = 0x80 + condition;
      bytes.writeInt32LE(helper - (FUNCTION + 2) - 6, 2);
      return bytes.toString('hex');
    };
    const relative = (next: number): string => {
      const bytes = Buffer.alloc(4);
      bytes.writeInt32LE(DATA - next);
      return bytes.toString('hex');
    };
    const bodies: Record<string, string> = {
      // 1 + 4, 4 + 4, 2 + 7, 10, 3 + 7, 4 + 10 bytes
      'push, sub': '53 4883ec20 4883c420 5b 488d0411 c3',
      'two of four': '4883ec20 4883c420 488d0411 c3',
      'lea after mov': `89c8 488d0511000000 488d0411 c3`,
      'a long immediate': '48b80100000000000000 4801c8 4801d0 c3',
      'mov [rip]': `90 4889 0d${relative(at(8))} 488b05${relative(at(15))} 4801d0 c3`,
      'cmp [rip], imm': `90 803d${relative(at(8))}05 488d0411 c3`,
      'lock inc [rip]': `f048ff05${relative(at(8))} 488d0411 c3`,
      'a 14-byte pair': `4883c101 48b90500000000000000 488d0411 c3`,
      'an 11-byte store after four bytes': `4883c101 48c705${relative(at(15))}07000000 488d0411 c3`,
      call: `${callTo(FUNCTION, helper)} 488d0411 c3`,
      'call after push': `53 ${callTo(FUNCTION + 1, helper)} 5b 488d0411 c3`,
    };
    for (let condition = 0; condition < 16; condition++) {
      // cmp ecx, edx; jcc helper
      bodies[`condition ${condition}`] = `39d1 ${jcc(condition)} 488d0411 c3`;
    }
    const lengths = new Set<number>();
    for (const [name, body] of Object.entries(bodies)) {
      const results = [false, true].map((detoured) => {
        const guest = new DetourGuest({ function: body });
        // add rcx, 100; mov rax, 7; ret
        guest.machine.writePhysical(helper as Gpa, code('4883c164 48c7c007000000 c3'));
        guest.machine.writePhysical(DATA as Gpa, bytesOf('0500000000000000'));
        let calls = 0;
        if (detoured) {
          lengths.add(guest.detour({ callback: () => calls++ }).prologueSize);
        }
        guest.run(1000);
        expect(calls, name).toBe(detoured ? 1 : 0);
        expect(guest.problems).toEqual([]);
        const { vcpu } = guest;
        return [vcpu.get('rax'), vcpu.get('rcx'), vcpu.get('rsp'), get64(guest.machine, DATA)];
      });
      expect(results[1], name).toEqual(results[0]);
    }
    expect([...lengths].toSorted((one, other) => one - other)).toEqual(expect.arrayContaining([5, 8, 9, 10, 14, 15]));
  });

  it('keeps its branch when its page moves [P15.14]', () => {
    const spare = 0x5_0000;
    const guest = new DetourGuest();
    let calls = 0;
    guest.detour({ callback: () => calls++ });
    guest.machine.writePhysical(spare as Gpa, guest.seen(CODE, PAGE_SIZE));
    // A page-table write by the engine's side of the house counts like one of the guest.
    expect(guest.engine.memory.compareExchange64(leafEntry(CODE), BigInt(CODE) | 3n, BigInt(spare) | 3n)).toBe(true);
    guest.run(1000);
    expect(calls).toBe(1);
    expect(guest.rax).toBe(42n);
    expect(guest.physical(FUNCTION, 10)).toEqual(bytesOf(SUM));
    expect(guest.physical(spare + 0x400, 1)).toEqual(bytesOf('e9'));
    guest.engine.detours.removeAll();
    expect(guest.physical(spare, PAGE_SIZE)).toEqual(guest.physical(CODE, PAGE_SIZE));
  });
});

describe('a detour that is not set', () => {
  it('leaves nothing in the guest and in the slack: branches that cannot be moved, functions that are detoured [P15.3] [P15.4]', () => {
    const cases = {
      'eb 10 90 90 90': { reason: 'relocation', detail: 'short-branch' },
      '90 74 10 90 90': { reason: 'relocation', detail: 'short-branch' },
      'e2 fe 90 90 90': { reason: 'relocation', detail: 'short-branch' },
      '33 c0 c3 cc cc': { reason: 'relocation', detail: 'ends-early' },
      '06 90 90 90 90': { reason: 'relocation', detail: 'invalid' },
      // jmp FUNCTION + 0x105
      'e9 00 01 00 00': { reason: 'already-detoured', target: `0x${kernel(FUNCTION + 0x105).toString(16)}` },
    };
    for (const [body, failure] of Object.entries(cases)) {
      const guest = new DetourGuest({ function: body });
      const before = guest.codePages;
      const result = guest.engine.detours.set(descriptor());
      expect(result, body).toMatchObject({ status: 'failed', function: kernel(FUNCTION), ...failure });
      expect(Buffer.compare(guest.codePages, before)).toBe(0);
      expect([guest.engine.slack.count, guest.engine.cloaks.count, guest.engine.hooks.page.count]).toEqual([0, 0, 0]);
    }
  });

  it('says what is missing', () => {
    const guest = new DetourGuest();
    const { detours } = guest.engine;
    const outcome = (more: Parameters<typeof descriptor>[0]): unknown => {
      const result = detours.set(descriptor(more));
      return result.status === 'failed' ? result.reason : result.status;
    };
    expect(outcome({ module: 'absent.sys' })).toBe('no-image');
    expect(outcome({ function: { by: 'export', name: 'Absent' } })).toBe('no-function');
    expect(outcome({ function: { by: 'symbol', name: 'Sum' } })).toBe('no-function');
    expect(outcome({ function: { by: 'pattern', patterns: [] } })).toBe('no-function');
    expect(outcome({ handlers: [] })).toBe('no-handler');
    expect(outcome({ handlers: [{ code: new Uint8Array(503) }] })).toBe('too-long');
    const full = { sections: [{ name: '.text', start: kernel(CODE), size: PAGE_SIZE - 12 }] };
    expect(new DetourGuest({ image: full }).engine.detours.set(descriptor())).toMatchObject({
      reason: 'slack',
      detail: { status: 'no-space' },
    });
    guest.machine.writePhysical((SLACK + 2) as Gpa, bytesOf('01'));
    expect(detours.set(descriptor())).toMatchObject({ reason: 'slack', detail: { status: 'dirty' } });
    guest.machine.writePhysical((SLACK + 2) as Gpa, bytesOf('00'));
    expect(outcome({ function: { by: 'symbol', name: 'SumSymbol' } })).toBe('set');
    expect(outcome({})).toBe('exists');
    expect(outcome({ name: 'again' })).toBe('already-detoured');
    guest.engine.addressSpaces = { systemCr3: undefined, isKnown: () => true };
    expect(outcome({ name: 'nowhere' })).toBe('unknown-address-space');
  });

  it('is refused when its descriptor contradicts itself', () => {
    const { detours } = new DetourGuest().engine;
    const refused = expect.objectContaining({ code: 'ERR_CORE_HOOKS_DETOUR' });
    const handler = (more: object): Parameters<typeof descriptor>[0] => ({ handlers: [{ ...PLAIN, ...more }] });
    for (const more of [
      handler({ hypercall: { kind: 'int3', offset: 1 } }),
      handler({ hypercall: { kind: 'vmcall', offset: 0 } }),
      handler({ hypercall: { kind: 'int3', offset: 3 } }),
      handler({ relocatedAt: 4 }),
      handler({ relocatedAt: -1 }),
      handler({ code: bytesOf('cc909090909090909090'), relocatedAt: 1 }),
      handler({ publicData: [{ name: 'x', offset: 2, size: 2 }] }),
      handler({ hypercall: { kind: 'syscall' as 'int3', offset: 0 } }),
      { arguments: Array.from({ length: 9 }, (_, stack) => ({ stack })) },
      { arguments: [{ register: 16 }] },
      { arguments: [{ stack: -1 }] },
      { arguments: [{ stack: 65 }] },
      { function: { by: 'ordinal' as 'export', name: '1' } },
      { function: { by: 'pattern', patterns: [{ bytes: '48 8' }] } } as const,
      { function: { by: 'pattern', patterns: [{ bytes: '?? ??' }] } } as const,
    ]) {
      expect(() => detours.set(descriptor(more))).toThrow(refused);
    }
  });

  it('is not wanted by its preparation, and nothing is left [P15.15]', () => {
    const guest = new DetourGuest();
    const before = guest.codePages;
    expect(guest.engine.detours.set(descriptor({ prepare: () => 'skip' }))).toEqual({ status: 'skipped' });
    expect(guest.engine.detours.set(descriptor({ prepare: () => 'fail' }))).toMatchObject({ reason: 'preparation' });
    expect(guest.engine.slack.count).toBe(0);
    expect(Buffer.compare(guest.codePages, before)).toBe(0);
    // One that is wanted may change the code of its handler, and only there.
    const handlerBytes = Uint8Array.from(PLAIN.code);
    guest.detour({
      prepare: ({ code: bytes, function: va }) => {
        expect(va).toBe(kernel(FUNCTION));
        bytes[2] = 0xf8;
        return 'set';
      },
    });
    expect(guest.physical(SLACK, 3)).toEqual(bytesOf('cc90f8'));
    expect(Uint8Array.from(PLAIN.code)).toEqual(handlerBytes);
  });

  it('of a list: a critical one is told after all were tried, another does not count [P15.12]', () => {
    const attempt = (critical: boolean): [boolean, number, string[]] => {
      const guest = new DetourGuest();
      const result = guest.engine.detours.setAll([
        descriptor({ name: 'absent', critical, function: { by: 'export', name: 'Absent' } }),
        descriptor({
          name: 'throws',
          critical: false,
          prepare: () => {
            throw new Error('of the test');
          },
        }),
        descriptor({ name: 'other build', builds: { min: 22_000 }, handlers: [] }),
        descriptor(),
      ]);
      return [result.critical, result.set.length, result.failed.map(({ failure }) => failure.reason)];
    };
    expect(attempt(true)).toEqual([true, 1, ['no-function', 'error']]);
    expect(attempt(false)).toEqual([false, 1, ['no-function', 'error']]);
  });

  it('leaves nothing behind, and no pause, when any call of the backend fails [P15.3] [P18.1]', () => {
    let refused = 0;
    for (const operation of ['pause', 'setPageAccess', 'writePhysical', 'setExit'] as const) {
      for (let nth = 1; nth <= 12; nth++) {
        const machine = microMachine();
        prepare(machine);
        machine.writePhysical(FUNCTION as Gpa, code(SUM));
        const mock = createMockPort(machine.openPort());
        const engine = new Engine(mock.port);
        engine.addressSpaces = { systemCr3: CR3, isKnown: () => true };
        const text = { name: '.text', start: kernel(CODE), size: TEXT_SIZE };
        engine.codeImages = createCodeImages(engine.memory, CR3, {
          images: [
            { name: 'nt', base: kernel(CODE), size: 4096, sections: [text], exports: { Sum: kernel(FUNCTION) } },
          ],
        });
        const before = machine.mapPage((CODE / PAGE_SIZE) as never)!.slice();
        mock.fail({ operation, nth });
        let failed = false;
        try {
          engine.detours.set(descriptor());
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_GLUE_INJECTED_FAULT' });
          failed = true;
          refused++;
        }
        mock.clearFaults();
        expect(mock.port.pauseCount).toBe(0);
        expect([engine.detours.all.length, engine.slack.count, engine.cloaks.count]).toEqual(
          failed ? [0, 0, 0] : [1, 1, 2],
        );
        engine.detours.removeAll();
        expect(Buffer.compare(machine.mapPage((CODE / PAGE_SIZE) as never)!, before)).toBe(0);
        engine.close();
      }
    }
    expect(refused).toBeGreaterThan(8);
  });
});

describe('a handler', () => {
  it('is chosen by the build [P15.5]', () => {
    const handlers = [
      { code: code('cc 90 90'), hypercall: { kind: 'int3' as const, offset: 0 }, builds: { max: 17_763 } },
      { code: code('90 cc 90'), hypercall: { kind: 'int3' as const, offset: 1 }, builds: { min: 17_764, max: 19_041 } },
      { code: code('90 90 cc'), hypercall: { kind: 'int3' as const, offset: 2 }, builds: { min: 22_000 } },
    ];
    const hypercallOf = (build: number): unknown => {
      const result = new DetourGuest({ build }).engine.detours.set(descriptor({ handlers }));
      return result.status === 'set' ? result.detour.hypercall : result.status === 'failed' && result.reason;
    };
    expect([17_763, 19_041, 20_000, 22_000].map(hypercallOf)).toEqual([
      kernel(SLACK),
      kernel(SLACK + 1),
      'no-handler',
      kernel(SLACK + 2),
    ]);
  });

  it('may need no hypercall, and filter its arguments in the guest', () => {
    // cmp rcx, 30; je +1; int3: asks about any other sum only
    const filter = { code: code('4883f91e 7401 cc'), hypercall: { kind: 'int3' as const, offset: 6 } };
    const twice = `48c7c11f000000 ${callTo(CODE + 7, FUNCTION)} 48c7c11e000000 ${callTo(CODE + 19, FUNCTION)} f4`;
    const guest = new DetourGuest({ caller: twice });
    const firsts: unknown[] = [];
    guest.detour({ handlers: [filter], callback: (call) => firsts.push(call.argument(0)) });
    guest.run(1000);
    expect(firsts).toEqual([31n]);
    const silent = new DetourGuest();
    const detour = silent.detour({ handlers: [{ code: code('4883c201') }], callback: () => expect.unreachable() });
    silent.run(1000);
    expect(detour.hypercall).toBeUndefined();
    expect(silent.rax).toBe(43n);
    expect(detour.setEnabled(false)).toBe(false);
    expect(silent.engine.counters.breakpoints).toBe(0);
  });

  it('has public data that can be changed in place, inside its bounds [P15.11]', () => {
    // int3, then nops that can become an endless loop
    const waiting = {
      code: code('cc 6690 9090'),
      hypercall: { kind: 'int3' as const, offset: 0 },
      publicData: [{ name: 'spinwait', offset: 3, size: 2 }],
    };
    const guest = new DetourGuest();
    const detour = guest.detour({ handlers: [waiting] });
    expect(detour.modifyPublicData('other', bytesOf('90'))).toBe('unknown-name');
    expect(detour.modifyPublicData('spinwait', bytesOf('909090'))).toBe('too-long');
    expect(detour.modifyPublicData('spinwait', new Uint8Array(0))).toBe('too-long');
    expect(guest.physical(SLACK, 5)).toEqual(bytesOf('cc66909090'));
    // inc rdx is three bytes; xor eax, eax is two
    expect(detour.modifyPublicData('spinwait', bytesOf('ffc2'))).toBe('ok');
    guest.run(1000);
    expect(guest.rax).toBe(43n);
    detour.remove();
    expect(detour.modifyPublicData('spinwait', bytesOf('9090'))).toBe('removed');
  });
});

describe('what a callback may do', () => {
  /** inc rdx; loop: the function is called twice. */
  const TWICE = `48c7c11e000000 48c7c20c000000 ${callTo(CODE + 14, FUNCTION)} 4889c3 ${callTo(CODE + 22, FUNCTION)} f4`;

  it('each row of the result table, and the RIP of it [P15.8]', () => {
    const row = (handler: typeof PLAIN, callback: (call: DetourCall) => void) => {
      const guest = new DetourGuest({ caller: TWICE });
      const before = guest.codePages;
      const detour = guest.detour({ handlers: [handler], callback });
      guest.run(1000);
      const restored = Buffer.compare(guest.physical(CODE, TEXT_SIZE), before.subarray(0, TEXT_SIZE)) === 0;
      return {
        sums: [guest.vcpu.get('rbx'), guest.rax],
        hits: detour.hits,
        restored,
        off: guest.physical(SLACK, handler === PLAIN ? 1 : 3),
        problems: guest.problems.map((problem) => problem.kind),
      };
    };
    const sums = [42n, 42n];
    for (const handler of [PLAIN, BY_VMCALL]) {
      const on = Uint8Array.from(handler.code.subarray(0, handler === PLAIN ? 1 : 3));
      const off = handler === PLAIN ? bytesOf('90') : bytesOf('666690');
      const usual = { sums, hits: 2, restored: false, off: on, problems: [] };
      expect(row(handler, () => undefined)).toEqual(usual);
      expect(
        row(handler, () => {
          throw new Error('of the test');
        }),
      ).toEqual({ ...usual, problems: ['callback', 'callback'] });
      expect(row(handler, (call) => call.disableDetour())).toEqual({ ...usual, hits: 1, restored: true, off });
    }
    expect(row(PLAIN, (call) => call.removeAndRestart())).toEqual({
      sums,
      hits: 1,
      restored: true,
      off: bytesOf('90'),
      problems: [],
    });
    expect(row(BY_VMCALL, (call) => call.removeAndRestart())).toMatchObject({
      sums,
      hits: 2,
      restored: false,
      problems: ['callback', 'callback'],
    });
  });

  it('deny a call by leading the handler its other way', () => {
    // int3; jmp +8; mov eax, 0xC0000022; ret; nop nop: the engine skips the jump
    const denying = { code: code('cc eb08 b8220000c0 c3 9090'), hypercall: { kind: 'int3' as const, offset: 0 } };
    for (const deny of [false, true]) {
      const guest = new DetourGuest();
      guest.detour({ handlers: [denying], callback: (call) => call.skip(deny ? 2 : 0) });
      guest.run(1000);
      expect(guest.rax).toBe(deny ? 0xc000_0022n : 42n);
    }
  });

  it('read and change arguments in registers and on the stack, all eight of them [P15.9] [P15.18]', () => {
    // push 8 numbers, make room for the return address' shadow space, call; the fifth argument is at [rsp + 0x28]
    const pushes = Array.from({ length: 4 }, (_, at) => `6a${(8 - at).toString(16).padStart(2, '0')}`).join('');
    const start = `48c7c101000000 48c7c202000000 49c7c003000000 49c7c104000000 ${pushes} 4883ec20`;
    const caller = `${start} ${callTo(CODE + start.replaceAll(' ', '').length / 2, FUNCTION)} f4`;
    // mov eax, [rsp+0x28] (4 + 1 bytes), add the sixth, seventh and eighth, rcx and r9; ret
    const sum = '488b442428 4803442430 4803442438 4803442440 4801c8 4c01c8 c3';
    const guest = new DetourGuest({ caller, function: sum });
    guest.detour({
      callback: (call) => {
        expect(call.arguments(8)).toEqual([1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n]);
        expect(call.arguments(9)).toBeUndefined();
        expect(call.argument(8)).toBeUndefined();
        expect(call.setArgument(0, 100n)).toBe(true);
        expect(call.setArgument(3, 400n)).toBe(true);
        expect(call.setArgument(7, 8000n)).toBe(true);
        expect(call.setArgument(8, 1n)).toBe(false);
        expect(call.argument(7)).toBe(8000n);
      },
    });
    guest.run(1000);
    expect(guest.problems).toEqual([]);
    expect(guest.rax).toBe(5n + 6n + 7n + 8000n + 100n + 400n);
  });

  it('take arguments from where the descriptor or the pattern says, and do not write where the kernel must not', () => {
    const guest = new DetourGuest();
    const values: unknown[] = [];
    guest.detour({
      function: {
        by: 'pattern',
        patterns: [{ bytes: '48 89 ?? 24 08', section: 'NONE', arguments: [{ register: 2 }, { stack: 0 }] }],
      },
      arguments: [{ register: 1 }],
      callback: (call) => values.push(call.argument(0), call.argument(1), call.argument(2)),
    });
    guest.run(1000);
    expect(values).toEqual([12n, kernel(CODE + 19), undefined]);
    const odd = new DetourGuest();
    odd.detour({
      arguments: [{ stack: 64 }],
      callback: (call) => {
        // A stack that the kernel must not write to.
        put64(odd.machine, leafEntry(STACK), BigInt(STACK) | 7n);
        values.push(call.setArgument(0, 1n));
      },
    });
    odd.vcpu.set('rsp', kernel(STACK));
    values.length = 0;
    odd.run(1000);
    expect(values).toEqual([false]);
  });

  it('answer the handler, in RAX after INT3 and in RSI after VMCALL [P15.10]', () => {
    // hypercall; then mov rcx, rax or rsi
    const answers = [
      { code: code('cc 4889c1'), hypercall: { kind: 'int3' as const, offset: 0 } },
      { code: code('0f01c1 4889f1'), hypercall: { kind: 'vmcall' as const, offset: 0 } },
    ];
    for (const handler of answers) {
      const guest = new DetourGuest();
      guest.detour({ handlers: [handler], callback: (call) => call.setReturnValue(1000n) });
      guest.run(1000);
      expect(guest.rax).toBe(1012n);
    }
  });
});

describe('hypercalls', () => {
  it('are switched by options, the branch is not: every row of the truth table [P15.6]', () => {
    for (const [handler, on, off] of [
      [PLAIN, 'cc9090', '909090'],
      [BY_VMCALL, '0f01c1', '666690'],
    ] as const) {
      for (const [options, enable, disable, expected] of [
        [0b00n, 0b01n, 0b10n, false],
        [0b01n, 0b01n, 0b10n, true],
        [0b10n, 0b01n, 0b10n, false],
        [0b11n, 0b01n, 0b10n, false],
        [0b01n, 0b11n, undefined, true],
        [0b10n, undefined, 0b10n, true],
        [0b00n, undefined, undefined, true],
      ] as const) {
        const guest = new DetourGuest();
        let calls = 0;
        const detour = guest.detour({ handlers: [handler], enable, disable, callback: () => calls++ });
        const before = guest.codePages;
        guest.engine.detours.applyOptions(options);
        expect(detour.enabled).toBe(expected);
        expect(guest.physical(SLACK, 3)).toEqual(bytesOf(expected ? on : off));
        const after = guest.codePages;
        after.set(before.subarray(SLACK - CODE, SLACK - CODE + 3), SLACK - CODE);
        expect(Buffer.compare(after, before)).toBe(0);
        guest.run(1000);
        expect(calls).toBe(expected ? 1 : 0);
        expect(guest.rax).toBe(42n);
      }
    }
    const later = new DetourGuest();
    later.engine.detours.applyOptions(2n);
    expect(later.detour({ enable: 1n }).enabled).toBe(false);
  });

  it('that were met right before they were switched off are answered without the callback [P15.7]', () => {
    const guest = new DetourGuest();
    let calls = 0;
    const detour = guest.detour({ callback: () => calls++ });
    // Another handler of breakpoints is asked before only if it was set before; this one switches the detour off and does not claim.
    const first = new DetourGuest();
    let second = 0;
    first.engine.hooks.breakpoint.set({ callback: () => first.engine.detours.find('Sum')?.setEnabled(false) });
    first.detour({ callback: () => second++ });
    first.run(1000);
    expect([second, first.rax]).toEqual([0, 42n]);
    expect(first.engine.counters.breakpoints).toBe(1);
    guest.run(1000);
    expect([calls, guest.rax, detour.hits]).toEqual([1, 42n, 1]);
  });

  it('of a RIP that is not exactly that of a handler are the guest’s own [P15.17]', () => {
    // The engine's handlers see the INT3 at the start of the program; nobody claims it, so the guest takes a #BP, and stops for want of an IDT.
    const guest = new DetourGuest({ caller: `cc ${CALLER}` });
    let calls = 0;
    guest.detour({ callback: () => calls++ });
    guest.run(1000);
    expect(calls).toBe(0);
    expect(guest.engine.counters.breakpoints).toBe(1);
    // Two INT3 in a handler: only the one that is declared is claimed.
    const two = new DetourGuest();
    two.detour({ handlers: [{ ...PLAIN, code: code('cc cc 90') }], callback: () => calls++ });
    two.run(1000);
    expect(calls).toBe(1);
    expect(two.rax).not.toBe(42n);
  });
});

describe('the code of the guest', () => {
  it('is not written while the guest runs [P18.3]', () => {
    const guest = new DetourGuest();
    const { port, memory } = guest.engine;
    const write = port.writePhysical.bind(port);
    let writes = 0;
    port.writePhysical = (gpa, source) => {
      writes++;
      expect(port.pauseCount).toBeGreaterThan(0);
      return write(gpa, source);
    };
    const detour = guest.detour({ callback: (call) => call.disableDetour() });
    detour.setEnabled(false);
    detour.setEnabled(true);
    guest.run(1000);
    guest.engine.detours.removeAll();
    expect(writes).toBeGreaterThanOrEqual(6);
    expect(port.pauseCount).toBe(0);
    port.writePhysical = write;
    expect(memory.writePhysical(FUNCTION as Gpa, bytesOf('90'))).toBe(true);
  });
});

describe('queries', () => {
  it('tell what an address belongs to, and where replaced instructions went, but not their first [P15.13]', () => {
    const guest = new DetourGuest({ function: '53 4883ec20 4883c420 5b 488d0411 c3' });
    const detour = guest.detour();
    const { detours } = guest.engine;
    const at = (physical: number): Gva => kernel(physical);
    expect(detour.prologueSize).toBe(5);
    expect(detours.relocate(at(FUNCTION))).toBeUndefined();
    expect(detours.relocate(at(FUNCTION + 1))).toBe(at(SLACK + 4));
    expect(detours.relocate(at(FUNCTION + 5))).toBeUndefined();
    expect(detours.prologueAt(at(FUNCTION))).toBe(detour);
    expect(detours.prologueAt(at(FUNCTION + 5))).toBeUndefined();
    expect(detours.handlerAt(at(SLACK))).toBe(detour);
    expect(detours.handlerAt(at(SLACK + detour.handlerSize - 1))).toBe(detour);
    expect(detours.handlerAt(at(SLACK + detour.handlerSize))).toBeUndefined();
    expect(detours.handlerAt(at(SLACK - 1))).toBeUndefined();
    detour.disable();
    expect(detours.relocate(at(FUNCTION + 1))).toBeUndefined();
    expect(detours.handlerAt(at(SLACK))).toBe(detour);
  });
});

describe('taking detours back', () => {
  it('restores every byte: branch and hypercall first, then the handler [P15.16]', () => {
    const guest = new DetourGuest();
    const before = guest.codePages;
    guest.detour();
    const { engine } = guest;
    engine.detours.disableAll();
    expect(Buffer.compare(guest.physical(CODE, TEXT_SIZE), before.subarray(0, TEXT_SIZE))).toBe(0);
    expect(guest.physical(SLACK, 3)).toEqual(bytesOf('909090'));
    expect(engine.detours.all.length).toBe(1);
    engine.detours.removeAll();
    expect(Buffer.compare(guest.codePages, before)).toBe(0);
    guest.run(1000);
    expect(guest.rax).toBe(42n);
    expect([engine.detours.all.length, engine.slack.count, engine.cloaks.count]).toEqual([0, 0, 0]);
    expect([engine.hooks.page.count, engine.hooks.translation.count]).toEqual([0, 0]);
    expect(engine.port.getPageAccess((CODE / PAGE_SIZE) as never)).toBe(7);
  });

  it('happens by itself when the engine closes', () => {
    const guest = new DetourGuest();
    const before = guest.codePages;
    guest.detour();
    guest.close();
    // Without thread states nobody knows whether a thread is inside: the handler stays, without its hypercall.
    expect(Buffer.compare(guest.physical(CODE, TEXT_SIZE), before.subarray(0, TEXT_SIZE))).toBe(0);
    expect(guest.physical(SLACK, 3)).toEqual(bytesOf('909090'));
    expect(guest.problems).toEqual([]);
  });
});
