import { IntrodError, type IntrodErrorDetails } from '@introd/abi';

/** Codes of {@link ExceptionsError}. */
export type ExceptionsErrorCode =
  /** The text is not JSON (with `//` comments), is nested too deeply, or too long. */
  | 'ERR_EXCEPTIONS_SYNTAX'
  /** The source is JSON but no rule source: `Type` missing or unknown, or neither `Exceptions` nor `Signatures`. */
  | 'ERR_EXCEPTIONS_SOURCE'
  /** A rule has a field, name or flag that it cannot have. */
  | 'ERR_EXCEPTIONS_RULE'
  /** The sources hold no rule at all. */
  | 'ERR_EXCEPTIONS_EMPTY';

/** Rules that could not be loaded. Nothing of the sources is in force when it is thrown. */
export class ExceptionsError extends IntrodError {
  override readonly name = 'ExceptionsError';
  declare readonly code: ExceptionsErrorCode;
  /** Name of the source. */
  readonly source: string;
  /** Where in the source, as a path (`Exceptions[3].flags`); empty for the source as a whole. */
  readonly path: string;

  constructor(
    code: ExceptionsErrorCode,
    message: string,
    where: { readonly source: string; readonly path?: string },
    details?: IntrodErrorDetails,
  ) {
    super(code, message, details);
    this.source = where.source;
    this.path = where.path ?? '';
  }
}
