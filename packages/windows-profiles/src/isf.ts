import { debuggerDataStruct } from './debugger-data.js';
import { ProfileError } from './error.js';
import {
  type GuestProfileData,
  PROFILE_SCHEMA_VERSION,
  type ProfileField,
  type ProfileStruct,
  validateProfile,
} from './profile-data.js';

/** What of a symbol file goes into a profile. */
export interface ProfileSelection {
  /** Structures to take; those that they embed come along. One that the symbol file lacks is left out. */
  readonly structs: readonly string[];
  /** Whether a symbol is taken. */
  symbol(name: string, rva: number): boolean;
}

/** What a symbol file does not say about itself. */
export interface ProfileIdentity {
  /** Build number of the kernel that the symbols belong to. */
  readonly build: number;
  /** Update revision, when known. */
  readonly revision?: number;
}

/** Type nesting in a symbol file (arrays of arrays, bit fields): deeper is refused. */
const MAX_TYPE_DEPTH = 16;

type Json = { readonly [key: string]: unknown };

/**
 * Makes a profile of a symbol file in Volatility's ISF (JSON, versions 4 to 6). `_KDDEBUGGER_DATA64`, which symbol files
 * lack, is added.
 * @throws ProfileError ERR_PROFILES_NOT_ISF when the document is not ISF or contradicts itself, ERR_PROFILES_INVALID when
 *   the identity is not valid
 */
export function profileFromIsf(isf: unknown, identity: ProfileIdentity, selection: ProfileSelection): GuestProfileData {
  const root = object(isf, 'document');
  const windows = object(object(root.metadata, 'metadata').windows, 'metadata.windows');
  const pdb = object(windows.pdb, 'metadata.windows.pdb');
  const types = new IsfTypes(root);
  const structs: [string, ProfileStruct][] = [['_KDDEBUGGER_DATA64', debuggerDataStruct]];
  const seen = new Set<string>();
  const todo = selection.structs.filter((name) => types.hasStruct(name));
  for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
    if (seen.has(name)) continue;
    seen.add(name);
    const struct = types.struct(name);
    structs.push([name, struct]);
    for (const field of Object.values(struct.fields)) if (field.struct !== undefined) todo.push(field.struct);
  }
  const symbols: [string, number][] = [];
  for (const [name, value] of Object.entries(object(root.symbols, 'symbols'))) {
    const rva = integer(object(value, `symbols.${name}`).address, `symbols.${name}.address`);
    if (selection.symbol(name, rva)) symbols.push([name, rva]);
  }
  return validateProfile({
    schemaVersion: PROFILE_SCHEMA_VERSION,
    pdb: {
      name: text(pdb.database, 'metadata.windows.pdb.database'),
      guid: text(pdb.GUID, 'metadata.windows.pdb.GUID').toUpperCase(),
      age: integer(pdb.age, 'metadata.windows.pdb.age'),
    },
    build: identity.build,
    ...(identity.revision === undefined ? {} : { revision: identity.revision }),
    arch: 'x64',
    pointerSize: 8,
    structs: Object.fromEntries(structs.toSorted(byName)),
    symbols: Object.fromEntries(symbols.toSorted(byName)),
  });
}

/** The type part of an ISF document. */
class IsfTypes {
  readonly #user: Json;
  readonly #base: Json;
  readonly #enums: Json;

  constructor(root: Json) {
    this.#user = object(root.user_types, 'user_types');
    this.#base = object(root.base_types, 'base_types');
    this.#enums = object(root.enums, 'enums');
    if (this.#sizeIn(this.#base, 'pointer', 'base_types') !== 8) fail('pointers are not 8 bytes: not an x64 kernel');
  }

  hasStruct(name: string): boolean {
    return Object.hasOwn(this.#user, name);
  }

  struct(name: string): ProfileStruct {
    const source = object(member(this.#user, name, 'user_types'), `user_types.${name}`);
    const fields: [string, ProfileField][] = [];
    for (const [fieldName, value] of Object.entries(object(source.fields, `user_types.${name}.fields`))) {
      const where = `user_types.${name}.fields.${fieldName}`;
      const field = object(value, where);
      const type = object(field.type, `${where}.type`);
      const offset = integer(field.offset, `${where}.offset`);
      const embedded = this.#embedded(type, where);
      fields.push([
        fieldName,
        {
          offset,
          size: this.#size(type, where),
          ...(type.kind === 'bitfield'
            ? { bit: integer(type.bit_position, where), bits: integer(type.bit_length, where) }
            : {}),
          ...(embedded === undefined ? {} : { struct: embedded }),
        },
      ]);
    }
    fields.sort(
      ([aName, a], [bName, b]) => a.offset - b.offset || (a.bit ?? 0) - (b.bit ?? 0) || (aName < bName ? -1 : 1),
    );
    return { size: integer(source.size, `user_types.${name}.size`), fields: Object.fromEntries(fields) };
  }

  /** Name of the structure that a field holds, or holds an array of. */
  #embedded(type: Json, where: string): string | undefined {
    let inner = type;
    for (let depth = 0; inner.kind === 'array'; depth++) {
      if (depth >= MAX_TYPE_DEPTH) fail(`${where} nests too deep`);
      inner = object(inner.subtype, where);
    }
    const kind = inner.kind;
    return kind === 'struct' || kind === 'union' || kind === 'class' ? text(inner.name, where) : undefined;
  }

  #size(type: Json, where: string, depth = 0): number {
    if (depth >= MAX_TYPE_DEPTH) fail(`${where} nests too deep`);
    switch (type.kind) {
      case 'pointer':
        return 8;
      case 'base':
        return this.#sizeIn(this.#base, text(type.name, where), 'base_types');
      case 'enum':
        return this.#sizeIn(this.#enums, text(type.name, where), 'enums');
      case 'array':
        return integer(type.count, where) * this.#size(object(type.subtype, where), where, depth + 1);
      case 'bitfield':
        return this.#size(object(type.type, where), where, depth + 1);
      case 'function':
        return 0;
      case 'struct':
      case 'union':
      case 'class':
        return this.#sizeIn(this.#user, text(type.name, where), 'user_types');
      default:
        return fail(`${where} has a type of an unknown kind`);
    }
  }

  #sizeIn(table: Json, name: string, tableName: string): number {
    return integer(object(member(table, name, tableName), `${tableName}.${name}`).size, `${tableName}.${name}.size`);
  }
}

function byName(a: readonly [string, unknown], b: readonly [string, unknown]): number {
  return a[0] < b[0] ? -1 : 1;
}

function fail(message: string): never {
  throw new ProfileError('ERR_PROFILES_NOT_ISF', `not a usable symbol file: ${message}`, {
    hint: 'give the JSON that volatility3 makes of ntkrnlmp.pdb (ISF, decompressed)',
  });
}

function object(value: unknown, where: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) fail(`${where} is not an object`);
  return value as Json;
}

function member(table: Json, name: string, tableName: string): unknown {
  return Object.hasOwn(table, name) ? table[name] : fail(`${tableName} lacks ${name}`);
}

function integer(value: unknown, where: string): number {
  return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : fail(`${where} is not a count`);
}

function text(value: unknown, where: string): string {
  return typeof value === 'string' ? value : fail(`${where} is not a text`);
}
