import { IntrodError, type IntrodErrorDetails } from '@introd/abi';

/** Codes of {@link WindowsError}. */
export type WindowsErrorCode =
  /** The policy's text is not JSON. */
  | 'ERR_WINDOWS_POLICY_SYNTAX'
  /** The policy is JSON, but no policy; the message names the first property that is wrong. */
  | 'ERR_WINDOWS_POLICY_INVALID';

/** Something that was given to the Windows layer cannot be used. What a guest does never raises it. */
export class WindowsError extends IntrodError {
  override readonly name = 'WindowsError';
  declare readonly code: WindowsErrorCode;
  constructor(code: WindowsErrorCode, message: string, details?: IntrodErrorDetails) {
    super(code, message, details);
  }
}
