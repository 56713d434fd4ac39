import { IntrodError, type IntrodErrorDetails } from '@introd/abi';

/** Codes of {@link CoreHooksError}. */
export type CoreHooksErrorCode =
  /** A hook's range is empty or crosses a page. */
  | 'ERR_CORE_HOOKS_RANGE'
  /** A hook's access is not exactly one of read, write and execute. */
  | 'ERR_CORE_HOOKS_ACCESS'
  /** An option has a value that it cannot have, or that contradicts another. */
  | 'ERR_CORE_HOOKS_OPTIONS'
  /** A hook was to be set without a callback. */
  | 'ERR_CORE_HOOKS_CALLBACK'
  /** A kernel address was to be followed with the CR3 of a process. */
  | 'ERR_CORE_HOOKS_KERNEL_ADDRESS'
  /** A region was to be hooked of an object that was removed, or a removed integrity region to be restored. */
  | 'ERR_CORE_HOOKS_REMOVED'
  /** A detour's descriptor contradicts itself. */
  | 'ERR_CORE_HOOKS_DETOUR'
  /** A paging mode that there is not. */
  | 'ERR_CORE_HOOKS_PAGING_MODE'
  /** What a callback left as its verdict is none. */
  | 'ERR_CORE_HOOKS_VERDICT'
  /** A frame that was RAM is none any more. */
  | 'ERR_CORE_HOOKS_NO_MEMORY'
  /** A backend's VCPU record has a layout of another version. */
  | 'ERR_CORE_HOOKS_RECORD_VERSION'
  /** A callback wanted the next exit while its own is being handled. */
  | 'ERR_CORE_HOOKS_REENTERED'
  /** The engine was closed. */
  | 'ERR_CORE_HOOKS_CLOSED';

/** A broken promise between the engine and the code that uses it. */
export class CoreHooksError extends IntrodError {
  override readonly name = 'CoreHooksError';
  declare readonly code: CoreHooksErrorCode;
  constructor(code: CoreHooksErrorCode, message: string, details?: IntrodErrorDetails) {
    super(code, message, details);
  }
}
