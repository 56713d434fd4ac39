import type { FieldLayout, StructLayout } from '@introd/abi';
import typia, { type tags } from 'typia';
import { ProfileError } from './error.js';

/** Version of {@link GuestProfileData} that this package reads and writes. */
export const PROFILE_SCHEMA_VERSION = 1;

type Offset = number & tags.Type<'uint32'>;

/** A field, and the structure that it embeds (or that it is an array of), through which nested paths go on. */
export interface ProfileField extends FieldLayout {
  readonly offset: Offset;
  readonly size: Offset;
  readonly bit?: number & tags.Type<'uint32'> & tags.Maximum<63>;
  readonly bits?: number & tags.Type<'uint32'> & tags.Minimum<1> & tags.Maximum<64>;
  /** Name of the embedded structure, when the profile holds it. */
  readonly struct?: string;
}

/** A structure whose fields may embed others of the same profile. */
export interface ProfileStruct extends StructLayout {
  readonly size: Offset;
  readonly fields: { readonly [name: string]: ProfileField };
}

/** What identifies a symbol file: the RSDS record in the debug directory of its image. */
export interface PdbIdentity {
  /** File name, e.g. `ntkrnlmp.pdb`. */
  readonly name: string & tags.MinLength<1>;
  /** 32 upper-case hex digits, in the order in which a GUID is written (`06564D34-7782-...` without the dashes). */
  readonly guid: string & tags.Pattern<'^[0-9A-F]{32}$'>;
  /** Age of the symbol file. */
  readonly age: Offset;
}

/** The layout of one Windows kernel as data: what a profile file holds. */
export interface GuestProfileData {
  readonly schemaVersion: 1;
  readonly pdb: PdbIdentity;
  /** Build number, e.g. 19041. */
  readonly build: number & tags.Type<'uint32'>;
  /** Update revision (the number after the build), when known. */
  readonly revision?: number & tags.Type<'uint32'>;
  readonly arch: 'x64';
  readonly pointerSize: 8;
  /** Structures by the name the symbols give them, e.g. `_EPROCESS`. */
  readonly structs: { readonly [name: string]: ProfileStruct };
  /** Offset of each symbol from the base of the kernel image (RVA). */
  readonly symbols: { readonly [name: string]: Offset };
}

const validate = typia.createValidate<GuestProfileData>();

/**
 * Checks that a value is a profile, and that its layouts are consistent.
 * @throws ProfileError ERR_PROFILES_INVALID, ERR_PROFILES_INCONSISTENT
 */
export function validateProfile(value: unknown): GuestProfileData {
  const result = validate(value);
  if (!result.success) {
    const first = result.errors[0];
    const what = first ? `${first.path} must be ${first.expected}` : 'it is not a profile';
    throw new ProfileError('ERR_PROFILES_INVALID', `not a guest profile: ${what}`, {
      hint: `a profile of schema version ${PROFILE_SCHEMA_VERSION} is what profileFromIsf makes`,
    });
  }
  for (const [name, struct] of Object.entries(result.data.structs)) {
    for (const [fieldName, field] of Object.entries(struct.fields)) checkField(struct, field, `${name}.${fieldName}`);
  }
  return result.data;
}

/**
 * Reads a profile from JSON text.
 * @throws ProfileError ERR_PROFILES_NOT_JSON, ERR_PROFILES_INVALID, ERR_PROFILES_INCONSISTENT
 */
export function parseProfile(text: string): GuestProfileData {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ProfileError('ERR_PROFILES_NOT_JSON', 'the profile is not JSON', { cause });
  }
  return validateProfile(value);
}

function checkField(struct: ProfileStruct, field: ProfileField, path: string): void {
  if (field.offset + field.size > struct.size) {
    throw new ProfileError(
      'ERR_PROFILES_INCONSISTENT',
      `${path} ends at ${field.offset + field.size}, beyond its structure of ${struct.size} bytes`,
    );
  }
  if ((field.bit === undefined) !== (field.bits === undefined)) {
    throw new ProfileError('ERR_PROFILES_INCONSISTENT', `${path} has only one of bit and bits`);
  }
  if (field.bit !== undefined && field.bits !== undefined && field.bit + field.bits > field.size * 8) {
    throw new ProfileError('ERR_PROFILES_INCONSISTENT', `bits of ${path} lie outside its ${field.size} bytes`);
  }
}
