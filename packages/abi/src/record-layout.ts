/**
 * Fixed binary layouts, described once: a field list in declaration order, from which offsets and sizes follow by
 * natural alignment (as a C compiler would lay out the same struct). The engine, the embedded machine and the native
 * addons all take their offsets from here.
 */

/** Type of one field: an unsigned integer, or bytes. */
export type FieldType = 'u8' | 'u16' | 'u32' | 'u64' | `bytes:${number}`;

/** Names of the fields of `F` that have type `T`. */
export type FieldsOf<F, T extends FieldType> = { [K in keyof F]: F[K] extends T ? K : never }[keyof F] & string;

/** A layout: where each field lies. */
export interface RecordLayout<F extends Record<string, FieldType>> {
  /** The fields as they were declared. */
  readonly fields: F;
  /** Byte offset of each field. */
  readonly offset: { readonly [K in keyof F]: number };
  /** Size of the whole record in bytes, a multiple of 64. */
  readonly size: number;
}

/** Size of a field in bytes. */
export function fieldSize(type: FieldType): number {
  switch (type) {
    case 'u8':
      return 1;
    case 'u16':
      return 2;
    case 'u32':
      return 4;
    case 'u64':
      return 8;
    default:
      return Number(type.slice('bytes:'.length));
  }
}

/** Lays out fields in order, each at its natural alignment (bytes: 8); the whole is rounded up to 64 bytes. */
export function defineRecord<const F extends Record<string, FieldType>>(fields: F): RecordLayout<F> {
  const offset: Record<string, number> = {};
  let at = 0;
  for (const [name, type] of Object.entries(fields)) {
    const size = fieldSize(type);
    const align = type.startsWith('bytes:') ? 8 : size;
    at = Math.ceil(at / align) * align;
    offset[name] = at;
    at += size;
  }
  return { fields, offset: offset as RecordLayout<F>['offset'], size: Math.ceil(at / 64) * 64 };
}
