import type { Gva } from '@introd/abi';
import type { AccessEvent } from '../dispatch/access-event.js';
import type { DetourCall } from './detour-call.js';

/** Builds of the guest's system, both ends included; a missing end is open. */
export interface BuildRange {
  readonly min?: number | undefined;
  readonly max?: number | undefined;
}

/** How a handler calls the engine: with an INT3 (1 byte) or a VMCALL (3 bytes). */
export type HypercallKind = 'int3' | 'vmcall';

/** Where an argument of the function is when the handler calls the engine. */
export type ArgumentLocation =
  /** Number of a general register in the order RAX RCX RDX RBX RSP RBP RSI RDI R8..R15. */
  | { readonly register: number }
  /** Word of the stack counted from the stack pointer; 0 is the return address, if the handler pushed nothing. */
  | { readonly stack: number };

/** Bytes of a handler that may be changed while it is in place. */
export interface PublicData {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
}

/** Code that runs in the guest before the function: at most 512 bytes with what is appended to it. */
export interface DetourHandler {
  /** For which builds; default all. */
  readonly builds?: BuildRange | undefined;
  /** Position independent machine code. */
  readonly code: Uint8Array;
  /** Where it calls the engine; a handler without never does. */
  readonly hypercall?: { readonly kind: HypercallKind; readonly offset: number } | undefined;
  /**
   * Where the instructions go that the branch replaced, followed by a jump back into the function. Default the end of the code. Only
   * bytes that hold the place of that jump may follow in `code`.
   */
  readonly relocatedAt?: number | undefined;
  readonly publicData?: readonly PublicData[] | undefined;
}

/** Bytes that a function is known by. */
export interface CodePattern {
  /** Two hex digits for each byte, `??` for any: `48 89 5C 24 ?? 57`. */
  readonly bytes: string;
  /** Section that it is looked for in first. */
  readonly section?: string | undefined;
  /** Bytes from the start of the pattern to where the branch goes. Default 0. */
  readonly offset?: number | undefined;
  /** Arguments, when they are others than those of the descriptor. */
  readonly arguments?: readonly ArgumentLocation[] | undefined;
}

/** How a function is found. */
export type FunctionLocation =
  | { readonly by: 'export'; readonly name: string }
  | { readonly by: 'symbol'; readonly name: string }
  | { readonly by: 'pattern'; readonly patterns: readonly CodePattern[] };

/** What the preparation of a detour may look at and change before anything is written. */
export interface DetourPreparation {
  /** The function that gets the branch. */
  readonly function: Gva;
  readonly handler: DetourHandler;
  /** A copy of the handler's code, to be changed in place. */
  readonly code: Uint8Array;
}

/** A function to be detoured, as data. */
export interface DetourDescriptor {
  /** Name of the detour; one of a name can be set at a time. */
  readonly name: string;
  /** File name of the image; default the kernel. */
  readonly module?: string | undefined;
  readonly function: FunctionLocation;
  /** For which builds; it is left out on others. Default all. */
  readonly builds?: BuildRange | undefined;
  /** The first one whose builds fit is taken. */
  readonly handlers: readonly DetourHandler[];
  /** Where the function's arguments are; default the calling convention of the guest's system. At most 8. */
  readonly arguments?: readonly ArgumentLocation[] | undefined;
  /** Options of which one must be on for the hypercall to be made; default it always is, whatever `disable` says. */
  readonly enable?: bigint | undefined;
  /** Options of which none may be on. */
  readonly disable?: bigint | undefined;
  /** Whether the guest cannot be protected without it. Default true. */
  readonly critical?: boolean | undefined;
  /** Called at each hypercall while the detour is enabled. */
  readonly callback?: ((call: DetourCall) => void) | undefined;
  /** Called before anything is written. `skip`: the detour is not wanted here. */
  readonly prepare?: ((preparation: DetourPreparation) => 'set' | 'skip' | 'fail') | undefined;
  /** Told of each write to the branch or the handler; all of them are denied. */
  readonly onWrite?: ((event: AccessEvent) => void) | undefined;
}

/** Whether a build is in a range; one that is not known is only in the range of all builds. */
export function includesBuild(range: BuildRange | undefined, build: number | undefined): boolean {
  if (range === undefined || (range.min === undefined && range.max === undefined)) {
    return true;
  }
  return build !== undefined && build >= (range.min ?? 0) && build <= (range.max ?? Number.POSITIVE_INFINITY);
}
