import { IntrodError, type IntrodErrorDetails } from '@introd/abi';

/** A broken promise towards `@introd/x86`: assembly text that is none. */
export class AssemblyError extends IntrodError {
  override readonly name = 'AssemblyError';

  /**
   * @param message what is wrong
   * @param details the offending line is in the hint
   */
  constructor(message: string, details: IntrodErrorDetails = {}) {
    super('ERR_X86_ASSEMBLY', message, details);
  }
}
