import { cr3 } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { closed, entryAddress, entryVirtualAddress, isOpen } from './entry.js';

describe('the self-map entry', () => {
  it.each<[bigint, boolean]>([
    [0n, false],
    [1n, false],
    [4n, false],
    [5n, true],
    [0x8000_0000_001a_d067n, true],
    [0x8000_0000_001a_d063n, false],
    [0xffff_ffff_ffff_fffan, false],
  ])('%s: open %s', (entry, open) => {
    expect(isOpen(entry)).toBe(open);
    expect(isOpen(closed(entry))).toBe(false);
    expect(closed(entry) | 4n).toBe(entry | 4n);
  });

  it('lies at its index in the PML4, whatever the flags in CR3 are', () => {
    expect(entryAddress(cr3(0x1ad000n), 0x1ed)).toBe(0x1adf68);
    expect(entryAddress(cr3(0x8000_0000_001a_d002n), 0x100)).toBe(0x1ad800);
  });

  it.each<[number, bigint]>([
    // 0x1ED is the index of Windows before it was randomised: PXE_SELFMAP is known from its documentation.
    [0x1ed, 0xffff_f6fb_7dbe_df68n],
    [0x100, 0xffff_8040_2010_0800n],
    [0x1ff, 0xffff_ffff_ffff_fff8n],
  ])('of index %i shows itself at its own address', (index, address) => {
    expect(entryVirtualAddress(index)).toBe(address);
  });
});
