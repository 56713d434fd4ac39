import { IntrodError, type IntrodErrorDetails } from '@introd/abi';

/** Codes of {@link ProfileError}. */
export type ProfileErrorCode =
  /** The text of a profile is not JSON. */
  | 'ERR_PROFILES_NOT_JSON'
  /** The value is not a profile of this schema version; the message names the first wrong property. */
  | 'ERR_PROFILES_INVALID'
  /** A field lies outside its structure, or a bit field outside its storage unit. */
  | 'ERR_PROFILES_INCONSISTENT'
  /** The value is not an ISF document of an x64 Windows kernel; the message says what is wrong. */
  | 'ERR_PROFILES_NOT_ISF'
  /** The profile has no such structure. */
  | 'ERR_PROFILES_NO_STRUCT'
  /** The structure has no such field. */
  | 'ERR_PROFILES_NO_FIELD'
  /** The profile has no such symbol. */
  | 'ERR_PROFILES_NO_SYMBOL'
  /** The bytes given to a reader end before the field does. */
  | 'ERR_PROFILES_SHORT_BUFFER'
  /** A symbol file cannot be read or decompressed. */
  | 'ERR_PROFILES_FILE';

/** A profile that cannot be used, or something that a profile does not have. */
export class ProfileError extends IntrodError {
  override readonly name = 'ProfileError';
  declare readonly code: ProfileErrorCode;
  constructor(code: ProfileErrorCode, message: string, details?: IntrodErrorDetails) {
    super(code, message, details);
  }
}
