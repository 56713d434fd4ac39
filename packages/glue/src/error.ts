import { IntrodError, type IntrodErrorDetails } from '@introd/abi';

/** Codes of {@link GlueError}. */
export type GlueErrorCode =
  /** The port does not have the capability. */
  | 'ERR_GLUE_NOT_SUPPORTED'
  /** Second-level rights that cannot be expressed (write without read). */
  | 'ERR_GLUE_ACCESS_NOT_EXPRESSIBLE'
  /** Rights that are no combination of the bits of `Access`. */
  | 'ERR_GLUE_BAD_ACCESS'
  /** An address or range outside the guest's memory. */
  | 'ERR_GLUE_NO_MEMORY'
  /** A VCPU number that the guest does not have. */
  | 'ERR_GLUE_NO_SUCH_VCPU'
  /** A reply to a VCPU that stands at no exit, or a second reply. */
  | 'ERR_GLUE_NOT_AT_EXIT'
  /** A reply that there is not. */
  | 'ERR_GLUE_BAD_REPLY'
  /** An exit to be switched that there is not. */
  | 'ERR_GLUE_BAD_EXIT'
  /** A compare-exchange of a size that there is not, or misaligned. */
  | 'ERR_GLUE_BAD_EXCHANGE'
  /** `resume` without `pause`. */
  | 'ERR_GLUE_NOT_PAUSED'
  /** An event is already waiting to be injected into the VCPU. */
  | 'ERR_GLUE_INJECTION_PENDING'
  /** An event that cannot be injected: no vector of an exception, or an error code that does not go with it. */
  | 'ERR_GLUE_BAD_EVENT'
  /** An XSAVE area that no processor would restore. */
  | 'ERR_GLUE_BAD_XSAVE_AREA'
  /** The port is closed. */
  | 'ERR_GLUE_CLOSED'
  /** A call that a test made fail. */
  | 'ERR_GLUE_INJECTED_FAULT'
  /** A backend does not do what the contract says; found by the conformance suite. */
  | 'ERR_GLUE_NOT_CONFORMING';

/** A broken promise between the engine and a backend. */
export class GlueError extends IntrodError {
  override readonly name = 'GlueError';
  declare readonly code: GlueErrorCode;
  constructor(code: GlueErrorCode, message: string, details?: IntrodErrorDetails) {
    super(code, message, details);
  }
}
