import { Access, accessText, type Gfn, type Gpa, hex64, isExpressible, PAGE_SIZE, Reply } from '@introd/abi';
import { GlueError } from './error.js';
import type { SwitchedExit } from './port.js';

// What every backend checks of the arguments of a call, so that none makes something else of them.

/** Highest value of {@link Reply}: they count from 0. */
const HIGHEST_REPLY = Math.max(...Object.values(Reply));

/** Which registers go with each kind of switched exit; `undefined` for the kinds that have none. */
const EXIT_REGISTERS: {
  readonly [K in SwitchedExit['kind']]: { readonly what: string; has(register: unknown): boolean } | undefined;
} = {
  'cr-write': { what: 'the register 0, 3, 4 or 8', has: (register) => [0, 3, 4, 8].includes(register as number) },
  'msr-write': {
    what: 'the number of an MSR, 32 bits',
    has: (register) => Number.isInteger(register) && (register as number) >>> 0 === register,
  },
  'xcr-write': undefined,
  'descriptor-table': undefined,
  breakpoint: undefined,
  vmcall: undefined,
  'event-injected': undefined,
  'page-walk-updates': undefined,
  'rep-iterations': undefined,
};

/** @throws GlueError ERR_GLUE_BAD_REPLY when the action is none of {@link Reply} */
export function checkReply(action: Reply): void {
  if (Number.isInteger(action) && action >= 0 && action <= HIGHEST_REPLY) return;
  throw new GlueError('ERR_GLUE_BAD_REPLY', `there is no reply ${String(action)}`, {
    hint: `replies: ${Object.keys(Reply).join(', ')}`,
  });
}

/** @throws GlueError ERR_GLUE_BAD_EXIT when there is no exit of that kind, or not for that register */
export function checkSwitchedExit(exit: SwitchedExit): void {
  if (!Object.hasOwn(EXIT_REGISTERS, exit.kind)) {
    throw new GlueError('ERR_GLUE_BAD_EXIT', `there is no switched exit of the kind ${String(exit.kind)}`, {
      hint: `kinds: ${Object.keys(EXIT_REGISTERS).join(', ')}`,
    });
  }
  const rule = EXIT_REGISTERS[exit.kind];
  const register: unknown = 'register' in exit ? exit.register : undefined;
  if (rule === undefined ? register === undefined : rule.has(register)) return;
  throw new GlueError('ERR_GLUE_BAD_EXIT', `no exit ${exit.kind} is of the register ${String(register)}`, {
    hint: rule === undefined ? 'this kind has no register' : `pass ${rule.what}`,
  });
}

/** @throws GlueError ERR_GLUE_BAD_EXCHANGE when the size is not 1, 2, 4 or 8, or the address no multiple of it */
export function checkExchange(address: Gpa, size: 1 | 2 | 4 | 8): void {
  if ((size === 1 || size === 2 || size === 4 || size === 8) && address % size === 0) return;
  throw new GlueError('ERR_GLUE_BAD_EXCHANGE', `no compare-exchange of ${String(size)} bytes at ${String(address)}`, {
    hint: 'sizes are 1, 2, 4 and 8 bytes, at a multiple of the size',
  });
}

/**
 * Checks the rights of a frame, and that it is a frame; whether it is RAM the backend knows.
 * @throws GlueError ERR_GLUE_BAD_ACCESS for what are no rights, ERR_GLUE_ACCESS_NOT_EXPRESSIBLE for write without read,
 *   ERR_GLUE_NO_MEMORY for what is no frame number
 */
export function checkPageAccess(frame: Gfn, access: Access): void {
  if (!Number.isInteger(access) || access < Access.NONE || access > Access.ALL) {
    throw new GlueError('ERR_GLUE_BAD_ACCESS', `${String(access)} are no rights`, {
      hint: `rights are bits of Access, ${Access.NONE} to ${Access.ALL}`,
    });
  }
  if (!isExpressible(access)) {
    throw new GlueError('ERR_GLUE_ACCESS_NOT_EXPRESSIBLE', `no second-level table can say ${accessText(access)}`, {
      hint: 'a page that is writable must be readable',
    });
  }
  if (!Number.isSafeInteger(frame)) throw noMemory(frame);
}

/** The error for a frame that is not RAM. */
export function noMemory(frame: Gfn): GlueError {
  const details = Number.isSafeInteger(frame) ? { address: hex64(frame * PAGE_SIZE) } : undefined;
  return new GlueError('ERR_GLUE_NO_MEMORY', `the frame ${String(frame)} is not RAM`, details);
}
