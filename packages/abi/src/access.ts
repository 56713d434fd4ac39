/** What an access does to a page: bits that combine. The numbers are those of the original's EPT hook types (behaviour 2.2). */
export const Access = { NONE: 0, READ: 1, WRITE: 2, EXECUTE: 4, ALL: 7 } as const;
/** A combination of the {@link Access} bits, 0..7. */
export type Access = number;

/** The bits of an access as letters, `-` for an absent one: `rw-`. */
export function accessText(access: Access): string {
  return `${access & 1 ? 'r' : '-'}${access & 2 ? 'w' : '-'}${access & 4 ? 'x' : '-'}`;
}

/**
 * Whether a second-level table can express these rights: writing without reading cannot be (SDM vol. 3C, 28.3.3.1, an
 * EPT misconfiguration).
 */
export function isExpressible(access: Access): boolean {
  return (access & Access.WRITE) === 0 || (access & Access.READ) !== 0;
}
