import { type Gva, gva } from '@introd/abi';
import type { AddressSpace } from './address-space.js';
import { OBJECT_KINDS, type Pool } from './pool.js';
import { ascii } from './struct-writer.js';

/** A security identifier: identifier authority (5 = NT) and sub-authorities. */
export type Sid = readonly [authority: number, ...subAuthorities: number[]];

/** S-1-5-18: Local System. */
export const LOCAL_SYSTEM: Sid = [5, 18];
/** S-1-5-32-544: Administrators. */
export const ADMINISTRATORS: Sid = [5, 32, 544];
/** S-1-1-0: Everyone. */
export const EVERYONE: Sid = [1, 0];

/** SE_GROUP_MANDATORY, ENABLED_BY_DEFAULT, ENABLED */
const GROUP_ENABLED = 0x7;

/** What a token says. */
export interface TokenContent {
  /** Low part of the logon session's LUID: 0x3E7 is Local System's. */
  readonly logonId: number;
  readonly sessionId: number;
  readonly user: Sid;
  readonly groups: readonly Sid[];
  /** Privileges held and enabled: bit n is privilege n. */
  readonly privileges: bigint;
}

/** Makes a primary token; user and groups lie in its variable part. */
export function writeToken(space: AddressSpace, pool: Pool, id: number, content: TokenContent): Gva {
  const sids = [content.user, ...content.groups];
  const sidBytes = sids.map(encodeSid);
  const variable = sids.length * 16 + sidBytes.reduce((sum, bytes) => sum + Math.ceil(bytes.length / 8) * 8, 0);
  const token = pool.object(OBJECT_KINDS.Token, '_TOKEN', variable);
  const entries = token.at('VariablePart');
  token.bytes('TokenSource.SourceName', ascii('*SYSTEM*').subarray(0, 8)).setAll({
    'TokenId.LowPart': id,
    'ModifiedId.LowPart': id + 1,
    'AuthenticationId.LowPart': content.logonId,
    ExpirationTime: 0x7fff_ffff_ffff_ffffn,
    'Privileges.Present': content.privileges,
    'Privileges.Enabled': content.privileges,
    'Privileges.EnabledByDefault': content.privileges,
    SessionId: content.sessionId,
    UserAndGroupCount: sids.length,
    VariableLength: variable,
    UserAndGroups: entries,
    TokenType: 1,
    TokenInUse: 1,
  });
  let at = entries + BigInt(sids.length * 16);
  sidBytes.forEach((bytes, i) => {
    space.write64(entries + BigInt(i * 16), at);
    space.write32(entries + BigInt(i * 16 + 8), i === 0 ? 0 : GROUP_ENABLED);
    space.write(at, bytes);
    at += BigInt(Math.ceil(bytes.length / 8) * 8);
  });
  return gva(token.va);
}

function encodeSid([authority, ...subAuthorities]: Sid): Uint8Array {
  const bytes = new Uint8Array(8 + subAuthorities.length * 4);
  bytes[0] = 1;
  bytes[1] = subAuthorities.length;
  // The authority is a 48-bit big-endian number; all that exist fit its last byte.
  bytes[7] = authority;
  const view = new DataView(bytes.buffer);
  subAuthorities.forEach((value, i) => {
    view.setUint32(8 + i * 4, value, true);
  });
  return bytes;
}
