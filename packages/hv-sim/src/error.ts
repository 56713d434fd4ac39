import { IntrodError, type IntrodErrorDetails } from '@introd/abi';

/** Codes of {@link HvSimError}. */
export type HvSimErrorCode =
  /** An option of the machine, or of the state that a VCPU is to enter, is unknown, missing or not what it must be. */
  | 'ERR_HV_SIM_OPTIONS'
  /** A VCPU number that the machine does not have. */
  | 'ERR_HV_SIM_NO_SUCH_VCPU'
  /** A port is open already. */
  | 'ERR_HV_SIM_PORT_OPEN'
  /** wasm/cpu.wasm is missing: the package has not been built. */
  | 'ERR_HV_SIM_NOT_BUILT';

/** A broken promise between the embedded machine and whoever uses it. */
export class HvSimError extends IntrodError {
  override readonly name = 'HvSimError';
  declare readonly code: HvSimErrorCode;
  constructor(code: HvSimErrorCode, message: string, details?: IntrodErrorDetails) {
    super(code, message, details);
  }
}
