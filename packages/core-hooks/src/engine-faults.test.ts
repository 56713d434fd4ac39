import { Access, type Gpa, Reply, Verdict, XSAVE_AREA, XStateComponent } from '@introd/abi';
import { createMockPort, SyntheticPort } from '@introd/glue/testing';
import { describe, expect, it } from 'vitest';
import { CODE, DATA, kernel, leafEntry, PML4, pageTables, STACK } from '../test/guest-layout.js';
import { Engine, type EngineProblem } from './index.js';

const ENTRY = leafEntry(DATA);
const OLD = BigInt(DATA) | 3n;

/** Every call of a backend that the engine makes on its way through the scenario below. */
const OPERATIONS = [
  'compareExchange',
  'mapPage',
  'setPageAccess',
  'flushPageAccess',
  'storeRegisters',
  'readXsaveArea',
  'reply',
  'setExit',
] as const;

interface Outcome {
  readonly problems: EngineProblem[];
  readonly calls: number;
  /** Whether a value that the hook forbids was ever allowed: committed, or left to the processor. */
  readonly leaked: boolean;
  readonly answered: number;
  readonly restricted: number[];
}

/** Hooks, page-table writes that are allowed, denied and replaced, a push, a tick and a control register write; one call fails. */
function scenario(operation?: (typeof OPERATIONS)[number], nth = 1): Outcome {
  const port = new SyntheticPort();
  const put64 = (gpa: number, value: bigint): void => {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    port.writePhysical(gpa as Gpa, bytes);
  };
  for (const [gpa, entry] of pageTables()) {
    put64(gpa, entry);
  }
  const vcpu = port.vcpu(0);
  vcpu.set('cr3', BigInt(PML4));
  vcpu.set('efer', 0xd01n);
  vcpu.set32('csAttributes', 0xa09b);
  vcpu.set('rsp', kernel(STACK));
  vcpu.set('rflags', 2n);
  vcpu.set('rbx', kernel(ENTRY));
  // or [rbx], 4; or [rbx], 8; push [rbx]; movups [rbx], xmm0
  const code = [0x48, 0x83, 0x0b, 0x04, 0x48, 0x83, 0x0b, 0x02, 0xff, 0x33, 0x0f, 0x11, 0x03];
  port.writePhysical(CODE as Gpa, Uint8Array.from(code));
  const vectors = new Uint8Array(XSAVE_AREA.size);
  vectors[XSAVE_AREA.offset.xmm] = 7;
  vectors[XSAVE_AREA.offset.xstateBv] = XStateComponent.SSE;
  port.writeXsaveArea(0, vectors);
  const mock = createMockPort(port);
  const problems: EngineProblem[] = [];
  const engine = new Engine(mock.port);
  engine.onProblem((problem) => problems.push(problem));
  if (operation !== undefined) {
    mock.fail({ operation, nth });
  }
  let leaked = false;
  const tolerate = (act: () => void): void => {
    try {
      act();
    } catch (cause) {
      // Setting a hook may fail to whoever sets it; it is not set then.
      expect(cause).toMatchObject({ code: 'ERR_GLUE_INJECTED_FAULT' });
    }
  };
  let guarded = false;
  tolerate(() => {
    engine.hooks.page.set({
      gpa: ENTRY,
      length: 8,
      access: Access.WRITE,
      pagingStructure: true,
      callback: ({ pageTableWrite: write }) => write!.replace(write!.new & ~4n),
    });
    guarded = true;
  });
  tolerate(() =>
    engine.hooks.page.set({
      gpa: (STACK - 8) as Gpa,
      length: 8,
      access: Access.WRITE,
      callback: (event) => {
        event.verdict = Verdict.NOT_ALLOWED;
        event.removeHook = true;
      },
    }),
  );
  tolerate(() => engine.hooks.cr.set(3, () => undefined).remove());
  let answered = 0;
  for (const [rip, target, access] of [
    [CODE, ENTRY, Access.WRITE],
    [CODE + 4, ENTRY, Access.WRITE],
    [CODE + 8, STACK - 8, Access.WRITE],
    [CODE + 10, ENTRY, Access.WRITE],
  ] as const) {
    for (let exit = 0; exit < 4; exit++) {
      put64(ENTRY, OLD);
      vcpu.set('rip', kernel(rip));
      port.raiseViolation(0, { gpa: target as Gpa, gla: kernel(target), access, size: 8 });
      engine.step(1);
      answered++;
      const after = engine.memory.read64(ENTRY)!;
      leaked ||= guarded && (after & 4n) !== 0n;
      leaked ||= guarded && (rip === CODE || rip === CODE + 10) && port.lastReply(0) === Reply.ALLOW_ONCE;
    }
  }
  port.raiseTick();
  engine.step(1);
  engine.close();
  // The port's own close restores everything; what counts is what the engine had set before that.
  const rights = new Map<number, Access>();
  for (const call of mock.calls('setPageAccess')) {
    if (call.thrown === undefined) {
      rights.set(call.args[0], call.args[1]);
    }
  }
  const restricted = [...rights].filter(([, access]) => access !== Access.ALL).map(([frame]) => frame);
  return { problems, calls: operation === undefined ? 0 : mock.calls(operation).length, leaked, answered, restricted };
}

describe('a backend whose n-th call fails', () => {
  it('is not needed for the scenario to show what it should', () => {
    const { problems, leaked, restricted } = scenario();
    expect(problems).toEqual([]);
    expect(leaked).toBe(false);
    expect(restricted).toEqual([]);
  });

  for (const operation of OPERATIONS) {
    it(`${operation}: nothing is thrown, no exit stays unanswered, nothing forbidden passes, all rights come back [1.2.2]`, () => {
      let nth = 0;
      let outcome: Outcome;
      do {
        outcome = scenario(operation, ++nth);
        expect(outcome.answered).toBe(16);
        expect(outcome.leaked, `${operation} ${nth}`).toBe(false);
        expect(outcome.restricted, `${operation} ${nth}`).toEqual([]);
      } while (outcome.calls >= nth);
      expect(nth).toBeGreaterThan(1);
    });
  }
});
