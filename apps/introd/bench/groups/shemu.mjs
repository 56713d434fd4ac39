import { emulateShellcode, ShellcodeFlag } from '@introd/x86/shellcode';
import { input } from '../inputs.mjs';
import { assert } from '../operation.mjs';

/** More than either loop takes: both come to their ends, one at RET, the other at an instruction that it decoded. */
const LIMIT = 4096;
const CODE_BASE = 0x20_0000n;

/** One of the inputs at the beginning of a page. */
function page(name) {
  const code = new Uint8Array(4096);
  code.set(input(name));
  return code;
}

function emulate(name, op, check) {
  const options = {
    code: page(name),
    codeBase: CODE_BASE,
    bitness: 64,
    ring: 3,
    stack: new Uint8Array(0x2000),
    stackBase: 0x1f_d000n,
    maxInstructions: LIMIT,
  };
  const first = emulateShellcode(options);
  check(first);
  return {
    group: 'shemu',
    op,
    unit: first.steps,
    run(count) {
      for (let i = 0; i < count; i++) {
        const { steps, flags } = emulateShellcode(options);
        if (steps !== first.steps || flags !== first.flags) assert(false, 'every emulation must come to the same');
      }
    },
  };
}

/** The shellcode emulator on a loop that decodes bytes, and on one that computes. An emulation's begin and end are part of it. */
export function operations() {
  return [
    emulate('shellcode64.bin', 'decoder loop, per instruction', (result) => {
      assert(result.steps > 256, 'the loop must run to its end');
      assert((result.flags & ShellcodeFlag.LOAD_RIP) !== 0, 'the code loads its address');
    }),
    emulate('arith64.bin', 'arithmetic loop, per instruction', (result) => {
      assert(result.steps > 1000, 'the loop must run to its end');
      assert(result.status === 'rip-outside' && result.registers.rax === 0n, 'it counts down and returns');
    }),
  ];
}
