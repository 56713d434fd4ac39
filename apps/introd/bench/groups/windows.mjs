import { Engine } from '@introd/core-hooks';
import { ExceptionsEngine } from '@introd/exceptions';
import { SelfMapProtection, WindowsProcess } from '@introd/windows';
import { assert } from '../operation.mjs';
import { put64, syntheticGuest } from '../synthetic-guest.mjs';

const PROCESSES = 256;
const SELF_MAP_INDEX = 0x1ed;
/** Where the PML4 of process n lies: pages in a row from here. */
const FIRST_PML4 = 0x20_0000;
/** P, R/W, A and D of a self-map entry as the kernel has it; U/S. */
const CLOSED = 0x63n;
const USER = 4n;

/** The check of each second: every process has one entry, and all are as they should be. */
function validateSelfMapEntries() {
  const { port } = syntheticGuest();
  const engine = new Engine(port);
  const protection = new SelfMapProtection();
  let told = 0;
  protection.enable({
    engine,
    info: { selfMapIndex: SELF_MAP_INDEX, build: 19041, arch: 'x64' },
    exceptions: ExceptionsEngine.withoutRules(),
    mode: 'enforce',
    withoutRules: 'block',
    alerts: { write: () => told++ },
  });
  const entry = (n) => FIRST_PML4 + n * 4096 + SELF_MAP_INDEX * 8;
  for (let n = 0; n < PROCESSES; n++) {
    const cr3 = BigInt(FIRST_PML4 + n * 4096);
    put64(port, entry(n), cr3 | CLOSED);
    protection.processAppeared(
      new WindowsProcess({
        eprocess: 0xffffa800_00000000n + BigInt(n) * 0x1000n,
        pid: 8 + n * 4,
        parentPid: 4,
        name: `process${n}.exe`,
        cr3,
        userCr3: cr3,
        createTime: 0n,
        hasAddressSpace: true,
        exiting: false,
        outswapped: false,
      }),
    );
  }
  return {
    group: 'windows',
    op: 'validate self-map entries, per process',
    unit: PROCESSES,
    run(count) {
      told = 0;
      for (let i = 0; i < count; i++) protection.tick();
      assert(told === 0, 'nothing must be told about entries that are closed');
      const open = BigInt(FIRST_PML4 + 7 * 4096) | CLOSED | USER;
      put64(port, entry(7), open);
      protection.tick();
      assert(told === 1, 'an open entry must be told');
      assert(engine.memory.read64(entry(7)) === (open & ~USER), 'an open entry must be closed');
    },
  };
}

/** What the Windows layer does each second. */
export function operations() {
  return [validateSelfMapEntries()];
}
