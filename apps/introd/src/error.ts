import { IntrodError, type IntrodErrorDetails } from '@introd/abi';

/** Exit codes of the program. */
export const ExitCode = {
  /** Everything as it should be. */
  OK: 0,
  /** The program ran, and what it shows is bad: an attack got through, a benign program was disturbed. */
  NOT_STOPPED: 1,
  /** Bad usage or bad input. */
  USAGE: 2,
  /** The guest failed. */
  GUEST_FAILED: 3,
} as const;
/** One of the {@link ExitCode} numbers. */
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** Codes of {@link CliError}. */
export type CliErrorCode =
  /** An option has a value that it cannot have. */
  | 'ERR_INTROD_USAGE'
  /** A file named by an option cannot be read or written. */
  | 'ERR_INTROD_FILE'
  /** The guest stopped for good (triple fault, power-off, an instruction the machine lacks). */
  | 'ERR_INTROD_GUEST_STOPPED'
  /** The guest made no progress for a long guest time. */
  | 'ERR_INTROD_GUEST_STUCK'
  /** The guest's kernel reported a fatal error of its own. */
  | 'ERR_INTROD_GUEST_CRASHED'
  /** Introspection cannot make sense of the guest. */
  | 'ERR_INTROD_GUEST_NOT_UNDERSTOOD';

/** An error that ends the program with a message. */
export class CliError extends IntrodError {
  override readonly name = 'CliError';
  declare readonly code: CliErrorCode;
  constructor(code: CliErrorCode, message: string, details?: IntrodErrorDetails & { readonly exitCode?: ExitCode }) {
    super(code, message, details);
    this.exitCode =
      details?.exitCode ??
      (code === 'ERR_INTROD_USAGE' || code === 'ERR_INTROD_FILE' ? ExitCode.USAGE : ExitCode.GUEST_FAILED);
  }
  /** What the process exits with. */
  readonly exitCode: ExitCode;
}
