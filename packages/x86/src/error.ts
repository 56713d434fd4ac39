import { IntrodError, type IntrodErrorDetails } from '@introd/abi';

/** Codes of {@link X86Error}. */
export type X86ErrorCode =
  /** The assembler was given text that is no instruction, or a label is missing or defined twice. */
  | 'ERR_X86_ASSEMBLY'
  /** A function was given an option, or a size of code, that there is not. */
  | 'ERR_X86_OPTIONS';

/** A broken promise towards `@introd/x86`. */
export class X86Error extends IntrodError {
  override readonly name = 'X86Error';
  declare readonly code: X86ErrorCode;

  /**
   * @param code which promise
   * @param message what is wrong
   * @param details the offending line or the values that there are, in the hint
   */
  constructor(code: X86ErrorCode, message: string, details: IntrodErrorDetails = {}) {
    super(code, message, details);
  }
}
