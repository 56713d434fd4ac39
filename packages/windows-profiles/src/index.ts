export { ProfileError, type ProfileErrorCode } from './error.js';
export { GuestProfile } from './guest-profile.js';
export { type ProfileIdentity, type ProfileSelection, profileFromIsf } from './isf.js';
export {
  type GuestProfileData,
  type PdbIdentity,
  PROFILE_SCHEMA_VERSION,
  type ProfileField,
  type ProfileStruct,
  parseProfile,
  validateProfile,
} from './profile-data.js';
export { ProfileStore } from './profile-store.js';
export { defaultSelection } from './selection.js';
export { StructReader } from './struct-reader.js';
