import { type Cr3, type Gfn, PAGE_SIZE } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { DATA, kernel, leafEntry, PML4 } from '../../test/guest-layout.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';

const OTHER = DATA + 0x5000;

describe('an entry that is changed in the moment in which it is guarded', () => {
  it('is read after that, so that the change is not lost [P18.6]', () => {
    const guest = new SyntheticGuest();
    const { port } = guest;
    const setPageAccess = port.setPageAccess.bind(port);
    const table = Math.floor(leafEntry(DATA) / PAGE_SIZE) as Gfn;
    let changed = 0;
    port.setPageAccess = (frame, access) => {
      if (frame === table && changed === 0) {
        changed++;
        // The last write of a VCPU that no exit tells of.
        guest.put64(leafEntry(DATA), BigInt(OTHER) | 3n);
      }
      setPageAccess(frame, access);
    };
    const hook = guest.engine.hooks.translation.set({ cr3: BigInt(PML4) as Cr3, va: kernel(DATA) });
    expect(changed).toBe(1);
    expect(hook.gpa).toBe(OTHER);
    expect(hook.entry & ~0xfffn).toBe(BigInt(OTHER));
  });
});
