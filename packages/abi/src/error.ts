/** What an {@link IntrodError} may carry beside its message. */
export interface IntrodErrorDetails {
  /** What the reader can do about it. */
  readonly hint?: string;
  /** The error that caused this one. */
  readonly cause?: unknown;
  /** Guest address that the error concerns, as a hex string. */
  readonly address?: string;
  /** Byte offset in the input that the error concerns. */
  readonly offset?: number;
}

/**
 * Base of every error that introd throws: a broken promise, never an expected outcome. Each package derives its own
 * class and owns the codes that begin with its name (`ERR_GLUE_...`); a code never changes its meaning.
 */
export class IntrodError extends Error {
  override readonly name: string = 'IntrodError';
  /** Stable code, documented in `docs/errors.md`. */
  readonly code: string;
  /** What the reader can do about it. */
  readonly hint: string | undefined;
  /** Guest address that the error concerns, as a hex string. */
  readonly address: string | undefined;
  /** Byte offset in the input that the error concerns. */
  readonly offset: number | undefined;

  constructor(code: string, message: string, details: IntrodErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.hint = details.hint;
    this.address = details.address;
    this.offset = details.offset;
  }
}
