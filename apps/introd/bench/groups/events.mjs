import { Access, ExitKind, Reply, Verdict } from '@introd/abi';
import { Engine } from '@introd/core-hooks';
import { assert } from '../operation.mjs';
import { ABOVE_4_GIB, ABOVE_4_GIB_MAPPED, CODE, DATA, kernel, putCode, syntheticGuest } from '../synthetic-guest.mjs';

const TARGET = DATA + 0x100;
/** mov [rbx], rax */
const STORE = '48 89 03';

/** An engine whose VCPU stands before a store to {@link TARGET}, or to another address. */
function storeGuest(gla = kernel(TARGET)) {
  const { port, vcpu } = syntheticGuest();
  putCode(port, STORE);
  vcpu.set('rbx', gla);
  vcpu.set('rax', 0x1122_3344_5566_7788n);
  const engine = new Engine(port);
  engine.onProblem((problem) => {
    throw new Error(`the engine reports a problem: ${problem.message}`, { cause: problem.cause });
  });
  return { port, vcpu, engine };
}

// The record of the exit is filled once; a backend fills it before it wakes the engine.
const write = { gpa: TARGET, gla: kernel(TARGET), access: Access.WRITE, size: 8 };

function writeToHook(exit = write) {
  const { port, engine } = storeGuest(exit.gla);
  let calls = 0;
  engine.hooks.page.set({
    gpa: exit.gpa,
    length: 8,
    access: Access.WRITE,
    callback: (event) => {
      calls++;
      event.verdict = Verdict.ALLOWED;
    },
  });
  return {
    group: 'events',
    op: 'EPT write violation -> hook callback',
    begin() {
      // The first exit puts the instruction into the cache and is taken again.
      port.raiseViolation(0, exit);
      engine.step(0);
      assert(port.lastReply(0) === Reply.RETRY, 'the first exit must be retried');
    },
    run(count) {
      const before = calls;
      for (let i = 0; i < count; i++) {
        port.raise(0);
        engine.step(0);
        if (port.lastReply(0) !== Reply.ALLOW_ONCE) assert(false, 'the write must be allowed once');
      }
      assert(calls === before + count, 'the hook must be called once per write');
    },
  };
}

function writeBesideHook() {
  const { port, engine } = storeGuest();
  let calls = 0;
  for (const offset of [-8, 8]) {
    engine.hooks.page.set({ gpa: TARGET + offset, length: 8, access: Access.WRITE, callback: () => calls++ });
  }
  return {
    group: 'events',
    op: 'EPT write on hooked page, no hook in range',
    begin() {
      port.raiseViolation(0, write);
      engine.step(0);
      assert(port.lastReply(0) === Reply.RETRY, 'the first exit must be retried');
    },
    run(count) {
      for (let i = 0; i < count; i++) {
        port.raise(0);
        engine.step(0);
        if (port.lastReply(0) !== Reply.ALLOW_ONCE) assert(false, 'the write must be allowed once');
      }
      assert(calls === 0, 'no hook may be called');
    },
  };
}

/**
 * Two exits: the first caches the instruction and write-protects its page, the second is decided. Between two operations the
 * code is written by the engine, which drops the instruction and the guard of its page; that is measured with them.
 */
function writeNotCached() {
  const { port, engine } = storeGuest();
  const code = Uint8Array.of(0x48);
  let calls = 0;
  engine.hooks.page.set({ gpa: TARGET, length: 8, access: Access.WRITE, callback: () => calls++ });
  return {
    group: 'events',
    op: 'EPT write, instruction not cached (2 exits)',
    begin() {
      port.raiseViolation(0, write);
      engine.step(0);
    },
    run(count) {
      const before = calls;
      const { cacheMisses } = engine.counters;
      for (let i = 0; i < count; i++) {
        engine.memory.writePhysical(CODE, code);
        port.raise(0);
        engine.step(0);
        if (port.lastReply(0) !== Reply.RETRY) assert(false, 'the first exit must be retried');
        port.raise(0);
        engine.step(0);
        if (port.lastReply(0) !== Reply.ALLOW_ONCE) assert(false, 'the write must be allowed once');
      }
      assert(calls === before + count, 'the hook must be called once per two exits');
      assert(engine.counters.cacheMisses === cacheMisses + count, 'the instruction must be decoded every time');
    },
  };
}

function execute() {
  const { port, engine } = storeGuest();
  let calls = 0;
  engine.hooks.page.set({ gpa: CODE, length: 3, access: Access.EXECUTE, callback: () => calls++ });
  const fetch = { gpa: CODE, gla: kernel(CODE), access: Access.EXECUTE, size: 3 };
  return {
    group: 'events',
    op: 'EPT execute violation -> hook callback',
    begin() {
      port.raiseViolation(0, fetch);
      engine.step(0);
    },
    run(count) {
      const before = calls;
      for (let i = 0; i < count; i++) {
        port.raise(0);
        engine.step(0);
        if (port.lastReply(0) !== Reply.ALLOW_ONCE) assert(false, 'the instruction must be allowed once');
      }
      assert(calls === before + count, 'the hook must be called once per fetch');
    },
  };
}

function cr4Write() {
  const { port, engine } = storeGuest();
  let calls = 0;
  engine.hooks.cr.set(4, (event) => {
    calls++;
    event.verdict = Verdict.ALLOWED;
  });
  const before = 0x306f8n;
  const after = 0x206f8n;
  return {
    group: 'events',
    op: 'CR4 write -> callback',
    begin() {
      port.raiseRegisterWrite(0, ExitKind.CR_WRITE, 4, before, after);
      engine.step(0);
    },
    run(count) {
      const called = calls;
      for (let i = 0; i < count; i++) {
        port.raise(0);
        engine.step(0);
        if (port.lastReply(0) !== Reply.ALLOW_ONCE) assert(false, 'the write must be allowed');
      }
      assert(calls === called + count, 'the callback must be called once per write');
    },
  };
}

function msrWrite() {
  const { port, engine } = storeGuest();
  const lstar = 0xc000_0082;
  let calls = 0;
  engine.hooks.msr.set(lstar, (event) => {
    calls++;
    event.verdict = Verdict.ALLOWED;
  });
  return {
    group: 'events',
    op: 'MSR write violation -> callback',
    begin() {
      port.raiseRegisterWrite(0, ExitKind.MSR_WRITE, lstar, 0xffff_8000_0001_2000n, 0xffff_8000_0001_3000n);
      engine.step(0);
    },
    run(count) {
      const called = calls;
      for (let i = 0; i < count; i++) {
        port.raise(0);
        engine.step(0);
        if (port.lastReply(0) !== Reply.ALLOW_ONCE) assert(false, 'the write must be allowed');
      }
      assert(calls === called + count, 'the callback must be called once per write');
    },
  };
}

function tick() {
  const { port, engine } = storeGuest();
  return {
    group: 'events',
    op: 'timer tick (1 s), no checks enabled',
    run(count) {
      const { ticks } = engine.counters;
      for (let i = 0; i < count; i++) {
        port.time += 1_000_000;
        port.raiseTick();
        engine.step(0);
        if (port.lastReply(1) !== Reply.RETRY) assert(false, 'the tick must be replied to');
      }
      assert(engine.counters.ticks === ticks + count && engine.time === port.time, 'every tick must be seen');
    },
  };
}

/** What an exit costs, from `next` to `reply`. */
export function operations() {
  return [writeToHook(), writeBesideHook(), writeNotCached(), execute(), cr4Write(), msrWrite(), tick()];
}

/** A write above 4 GiB: its physical address does not fit into 32 bits. */
function writeAbove4GiB() {
  const exit = { ...write, gpa: ABOVE_4_GIB + 0x100, gla: ABOVE_4_GIB_MAPPED + 0x100n };
  return { ...writeToHook(exit), op: 'EPT write violation above 4 GiB -> hook callback' };
}

/** The exits of every day, for the measurement of heap growth. */
export function commonExits() {
  return [writeBesideHook(), writeToHook(), writeAbove4GiB(), execute(), cr4Write(), msrWrite(), tick()];
}
