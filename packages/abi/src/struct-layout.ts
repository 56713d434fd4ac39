/** A field of a guest structure. */
export interface FieldLayout {
  /** Byte offset from the start of the structure. */
  readonly offset: number;
  /** Size in bytes (of the storage unit, for a bit field). */
  readonly size: number;
  /** First bit of a bit field. */
  readonly bit?: number;
  /** Number of bits of a bit field. */
  readonly bits?: number;
}

/** Layout of a guest structure, generated from symbols, never written by hand. */
export interface StructLayout {
  /** Size of the whole structure in bytes. */
  readonly size: number;
  /** The fields by the name the symbols give them. */
  readonly fields: { readonly [name: string]: FieldLayout };
}
