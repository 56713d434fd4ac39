import { closeSync, openSync, writeSync } from 'node:fs';
import type { LabGuest } from '@introd/guest-lab';
import { CliError } from '../error.js';

/** How a dump is laid out: an ELF64 core when the file is called `.elf` or `.core`, else the raw physical memory. */
function dumpFormat(file: string): 'elf' | 'raw' {
  return /\.(elf|core)$/i.test(file) ? 'elf' : 'raw';
}

/**
 * Opens the file for a dump before the run starts, so that a bad path fails at once.
 * @returns writes the guest's physical memory as it is now, closes the file, and returns the number of bytes
 * @throws CliError ERR_INTROD_FILE
 */
export function openDump(file: string): (guest: LabGuest) => number {
  const failed = (cause: unknown): CliError =>
    new CliError('ERR_INTROD_FILE', `--dump: cannot write "${file}": ${(cause as Error).message}`, { cause });
  let handle: number;
  try {
    handle = openSync(file, 'w');
  } catch (cause) {
    throw failed(cause);
  }
  return (guest) => {
    let size = 0;
    try {
      for (const chunk of dumpFormat(file) === 'elf' ? guest.elfCore() : guest.rawImage()) {
        for (let done = 0; done < chunk.length; ) done += writeSync(handle, chunk, done);
        size += chunk.length;
      }
    } catch (cause) {
      throw failed(cause);
    } finally {
      closeSync(handle);
    }
    return size;
  };
}
