import { Access } from '@introd/abi';
import { Engine } from '@introd/core-hooks';
import { assert } from '../operation.mjs';
import { DATA, kernel, PML4, syntheticGuest } from '../synthetic-guest.mjs';

/** Rights of a page whose writes are hooked. */
const GUARDED = Access.READ | Access.EXECUTE;

/** Sets a hook, removes it, and lets the engine commit: the page's rights change and change back. */
function pageHook() {
  const { port } = syntheticGuest();
  const engine = new Engine(port);
  const options = { gpa: DATA + 0x100, length: 8, access: Access.WRITE, callback: () => {} };
  return {
    group: 'hooks',
    op: 'set+remove+commit GPA hook',
    run(count) {
      const sets = port.pageAccessSets;
      for (let i = 0; i < count; i++) {
        const hook = engine.hooks.page.set(options);
        if (port.getPageAccess(DATA / 4096) !== GUARDED) assert(false, 'the page must be guarded');
        hook.remove();
        if (engine.step(0) !== 'idle') assert(false, 'there must be no exit');
      }
      assert(engine.hooks.page.count === 0, 'the hook must be removed');
      assert(port.getPageAccess(DATA / 4096) === Access.ALL, 'the page must have its rights back');
      assert(port.pageAccessSets <= sets + 2 * count, 'rights must change at most twice per hook');
    },
  };
}

/** The same at a virtual address: four tables are guarded and read, and given back. */
function virtualHook() {
  const { port } = syntheticGuest();
  const engine = new Engine(port);
  const options = {
    cr3: BigInt(PML4),
    va: kernel(DATA + 0x100),
    length: 8,
    access: Access.WRITE,
    callback: () => {},
  };
  return {
    group: 'hooks',
    op: 'set+remove+commit GVA hook',
    run(count) {
      for (let i = 0; i < count; i++) {
        const hook = engine.hooks.virtual.set(options);
        if (hook.gpa !== DATA + 0x100 || port.getPageAccess(DATA / 4096) !== GUARDED) {
          assert(false, 'the page must be guarded');
        }
        hook.remove();
        if (engine.step(0) !== 'idle') assert(false, 'there must be no exit');
      }
      const { page, pageTable, translation } = engine.hooks;
      assert(page.count + pageTable.count + translation.count === 0, 'no hook may be left');
      assert(port.getPageAccess(PML4 / 4096) === Access.ALL, 'the tables must have their rights back');
    },
  };
}

/** Setting and removing hooks. */
export function operations() {
  return [pageHook(), virtualHook()];
}
