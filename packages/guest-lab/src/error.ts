import { IntrodError, type IntrodErrorDetails } from '@introd/abi';

/** Codes of {@link LabError}. */
export type LabErrorCode =
  /** An option of `buildLabGuest` or a scenario is not valid. */
  | 'ERR_GUEST_LAB_BAD_OPTION'
  /** The given machine lacks memory or VCPUs that the lab guest needs. */
  | 'ERR_GUEST_LAB_MACHINE'
  /** Part of the guest does not fit where the layout puts it: the lab itself is wrong. */
  | 'ERR_GUEST_LAB_LAYOUT';

/** A lab guest that cannot be built or driven. */
export class LabError extends IntrodError {
  override readonly name = 'LabError';
  declare readonly code: LabErrorCode;
  constructor(code: LabErrorCode, message: string, details?: IntrodErrorDetails) {
    super(code, message, details);
  }
}
