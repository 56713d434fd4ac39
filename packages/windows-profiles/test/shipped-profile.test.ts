/**
 * Checks the shipped profile against the symbol file that it was made from, field by field, without using the importer:
 * from the raw JSON on one side, and from what the package answers on the other.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { ProfileStore } from '@introd/windows-profiles';
import { describe, expect, test } from 'vitest';

interface IsfType {
  kind: string;
  name?: string;
  count?: number;
  subtype?: IsfType;
  type?: IsfType;
  bit_position?: number;
  bit_length?: number;
}
interface Isf {
  metadata: { windows: { pdb: { GUID: string; age: number; database: string } } };
  base_types: Record<string, { size: number }>;
  enums: Record<string, { size: number }>;
  user_types: Record<string, { size: number; fields: Record<string, { offset: number; type: IsfType }> }>;
  symbols: Record<string, { address: number }>;
}

const data = process.env.INTROD_REFERENCE_DATA;
const file = data ? path.join(data, 'isf', '06564D3477822C7D97F04852CBD5AFD6-1.json.xz') : undefined;
const hasXz = spawnSync('xz', ['--version']).status === 0;
const missing = !file
  ? 'INTROD_REFERENCE_DATA is not set'
  : !existsSync(file)
    ? 'the symbol file is not in INTROD_REFERENCE_DATA'
    : !hasXz
      ? 'the program xz is not installed'
      : undefined;

function load(): Isf {
  const { stdout } = spawnSync('xz', ['-dc', file!], { maxBuffer: 2 ** 28, encoding: 'utf8' });
  return JSON.parse(stdout) as Isf;
}

function sizeOf(isf: Isf, type: IsfType): number {
  if (type.kind === 'pointer') return 8;
  if (type.kind === 'array') return type.count! * sizeOf(isf, type.subtype!);
  if (type.kind === 'bitfield') return sizeOf(isf, type.type!);
  if (type.kind === 'base') return isf.base_types[type.name!]!.size;
  if (type.kind === 'enum') return isf.enums[type.name!]!.size;
  return isf.user_types[type.name!]!.size;
}

describe(`the shipped profile of build 19041${missing ? ` (skipped: ${missing})` : ''}`, () => {
  test.skipIf(missing !== undefined)('says of every structure, field and symbol what the symbol file says', () => {
    const isf = load();
    const { GUID, age, database } = isf.metadata.windows.pdb;
    const profile = ProfileStore.bundled().byPdb(GUID, age)!;
    expect(profile.pdb).toEqual({ name: database, guid: GUID.toUpperCase(), age });
    // wdbgexts.h describes this one; symbol files do not.
    const structs = Object.keys(profile.data.structs).filter((name) => name !== '_KDDEBUGGER_DATA64');
    const wrong: string[] = [];
    let fields = 0;
    for (const name of structs) {
      const source = isf.user_types[name]!;
      const reader = profile.struct(name);
      if (reader.size !== source.size) wrong.push(name);
      if (Object.keys(profile.data.structs[name]!.fields).length !== Object.keys(source.fields).length)
        wrong.push(name);
      for (const [field, { offset, type }] of Object.entries(source.fields)) {
        fields++;
        const layout = reader.field(field);
        const same =
          layout.offset === offset &&
          layout.size === sizeOf(isf, type) &&
          layout.bit === type.bit_position &&
          layout.bits === type.bit_length;
        if (!same) wrong.push(`${name}.${field}`);
      }
    }
    for (const [name, rva] of Object.entries(profile.data.symbols)) {
      if (isf.symbols[name]?.address !== rva) wrong.push(name);
    }
    expect(wrong).toEqual([]);
    expect(structs.length).toBeGreaterThan(200);
    expect(fields).toBeGreaterThan(3000);
    expect(Object.keys(profile.data.symbols).length).toBeGreaterThan(7000);
  });

  test.skipIf(missing !== undefined)('follows nested paths as the symbol file nests', () => {
    const isf = load();
    const profile = ProfileStore.bundled().byBuild(19041)!;
    const at = (struct: string, field: string): number => isf.user_types[struct]!.fields[field]!.offset;
    expect(profile.struct('_EPROCESS').offset('Pcb.DirectoryTableBase')).toBe(at('_KPROCESS', 'DirectoryTableBase'));
    expect(profile.struct('_ETHREAD').offset('Tcb.ApcState.Process')).toBe(
      at('_KTHREAD', 'ApcState') + at('_KAPC_STATE', 'Process'),
    );
    expect(profile.struct('_KPCR').offset('Prcb.CurrentThread')).toBe(
      at('_KPCR', 'Prcb') + at('_KPRCB', 'CurrentThread'),
    );
  });
});
