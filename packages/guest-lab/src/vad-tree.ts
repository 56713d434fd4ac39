import type { Gva } from '@introd/abi';
import type { Pool } from './pool.js';
import { type GuestStruct, utf16 } from './struct-writer.js';
import type { UserModule, UserRange } from './user-space.js';

// Protection numbers of the memory manager (MM_READONLY, MM_READWRITE, MM_EXECUTE_WRITECOPY), and VadImageMap.
const PROTECTION = { read: 1, 'read-write': 4, image: 7 } as const;
const VAD_IMAGE_MAP = 2;

/** Makes file objects, control areas and subsections, one per module however many processes map it. */
export class ModuleSections {
  readonly #subsections = new Map<string, Gva>();

  constructor(private readonly pool: Pool) {}

  /** Subsection of a module's image section. */
  subsection(module: UserModule): Gva {
    const known = this.#subsections.get(module.path);
    if (known !== undefined) return known;
    // File names of file objects are relative to their volume: without the drive letter.
    const path = module.path.replace(/^[A-Z]:/, '');
    const file = this.pool
      .struct('File', '_FILE_OBJECT')
      .setAll({ Type: 5, Size: 0xd8 })
      .unicode('FileName', path, this.pool.bytes('FlNm', utf16(path)));
    const segment = this.pool.struct('MmSm', '_SEGMENT');
    const area = this.pool.struct('MmCa', '_CONTROL_AREA');
    const subsection = this.pool.struct('MmSb', '_SUBSECTION');
    area.setAll({
      Segment: segment.va,
      NumberOfSectionReferences: 1,
      NumberOfMappedViews: 1,
      'FilePointer.Value': file.va,
      'u.Flags.Image': 1,
      'u.Flags.File': 1,
    });
    area.emptyList('ListHead');
    segment.setAll({ ControlArea: area.va, TotalNumberOfPtes: module.size / 4096, SizeOfSegment: module.size });
    subsection.setAll({ ControlArea: area.va, PtesInSubsection: module.size / 4096 });
    this.#subsections.set(module.path, subsection.va);
    return subsection.va;
  }
}

/** Makes a balanced tree of VADs. @param ranges ascending. @returns the root, 0 for an empty list */
export function writeVadTree(pool: Pool, sections: ModuleSections, ranges: readonly UserRange[]): bigint {
  return build(pool, sections, ranges, undefined)?.va ?? 0n;
}

function build(
  pool: Pool,
  sections: ModuleSections,
  ranges: readonly UserRange[],
  parent: GuestStruct | undefined,
): GuestStruct | undefined {
  if (ranges.length === 0) return undefined;
  const middle = ranges.length >> 1;
  const range = ranges[middle]!;
  const image = range.module !== undefined;
  const vad = pool.struct(image ? 'Vad ' : 'VadS', image ? '_MMVAD' : '_MMVAD_SHORT');
  const path = image ? 'Core.' : '';
  const first = range.va >> 12n;
  const last = first + BigInt(range.size / 4096) - 1n;
  vad.setAll({
    [`${path}StartingVpn`]: first & 0xffff_ffffn,
    [`${path}EndingVpn`]: last & 0xffff_ffffn,
    [`${path}StartingVpnHigh`]: first >> 32n,
    [`${path}EndingVpnHigh`]: last >> 32n,
    [`${path}u.VadFlags.Protection`]: PROTECTION[range.protection],
    [`${path}u.VadFlags.VadType`]: image ? VAD_IMAGE_MAP : 0,
    [`${path}u.VadFlags.PrivateMemory`]: image ? 0 : 1,
  });
  if (range.module) vad.set('Subsection', sections.subsection(range.module));
  const left = build(pool, sections, ranges.slice(0, middle), vad);
  const right = build(pool, sections, ranges.slice(middle + 1), vad);
  vad
    .set(`${path}VadNode.Left`, left?.va ?? 0n)
    .set(`${path}VadNode.Right`, right?.va ?? 0n)
    .set(`${path}VadNode.ParentValue`, parent?.va ?? 0n);
  return vad;
}
