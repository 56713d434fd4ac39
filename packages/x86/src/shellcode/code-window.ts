const PAGE = 0x1000n;
/** From here on in a page, code may well go on in the next one. */
const LATE_OFFSET = 0xc00n;

/**
 * The piece of memory to emulate for code at an address: its page, and the next one as well when the code begins in the
 * last quarter (behaviour section 4, shellcode).
 * @param rip linear address of the first instruction
 * @returns page-aligned base, and 4096 or 8192 bytes; the second page need not be readable, then the first one has to do
 */
export function codeWindow(rip: bigint): { readonly base: bigint; readonly size: number } {
  const offset = rip & (PAGE - 1n);
  return { base: rip - offset, size: offset >= LATE_OFFSET ? 0x2000 : 0x1000 };
}
