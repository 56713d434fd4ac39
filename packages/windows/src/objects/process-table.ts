import { type Cr3, type Gva, rootOf } from '@introd/abi';
import type { AddressSpaces } from '@introd/core-hooks';
import type { VirtualMemory } from '../virtual-memory.js';
import { listProblemText, walkList } from './list-walk.js';
import { WindowsProcess } from './process.js';
import type { ProcessReader } from './process-reader.js';

/** Most processes that are followed (windows.md 6.2). */
const MAX_PROCESSES = 65535;

/** What changed since the list of processes was last read; or why it cannot be trusted, and then nothing changed. */
export type ProcessChanges =
  | { readonly status: 'ok'; readonly appeared: readonly WindowsProcess[]; readonly gone: readonly WindowsProcess[] }
  | { readonly status: 'problem'; readonly reason: string };

/** The processes of the guest, as they were when its list was last read. */
export class ProcessTable implements AddressSpaces {
  readonly systemCr3: Cr3;
  readonly #memory: VirtualMemory;
  readonly #head: Gva;
  readonly #reader: ProcessReader;
  #byEprocess = new Map<bigint, WindowsProcess>();
  #byRoot = new Map<number, WindowsProcess>();
  #list: readonly WindowsProcess[] = [];

  /**
   * @param memory the kernel's address space
   * @param head address of PsActiveProcessHead
   */
  constructor(memory: VirtualMemory, systemCr3: Cr3, head: Gva, reader: ProcessReader) {
    this.#memory = memory;
    this.systemCr3 = systemCr3;
    this.#head = head;
    this.#reader = reader;
  }

  /** The processes in the order of the kernel's list. */
  get list(): readonly WindowsProcess[] {
    return this.#list;
  }

  /** The process that has these page tables, the kernel's or the user ones. */
  byCr3(cr3: Cr3): WindowsProcess | undefined {
    return this.#byRoot.get(rootOf(cr3));
  }

  isKnown(cr3: Cr3): boolean {
    return this.#byRoot.has(rootOf(cr3));
  }

  /** Reads the kernel's list anew. */
  refresh(): ProcessChanges {
    const walk = walkList(this.#memory, this.#head, MAX_PROCESSES);
    if (walk.status !== 'ok') return { status: 'problem', reason: listProblemText('list of processes', walk) };
    const now = new Map<bigint, WindowsProcess>();
    const appeared: WindowsProcess[] = [];
    for (const entry of walk.entries) {
      const eprocess = this.#reader.processOf(entry);
      const fields = this.#reader.read(this.#memory, eprocess);
      if (!fields?.hasAddressSpace) continue;
      const known = this.#byEprocess.get(eprocess);
      if (known?.is(fields)) {
        known.outswapped = fields.outswapped;
        known.exiting = fields.exiting;
        now.set(eprocess, known);
      } else if (!fields.exiting) {
        const process = new WindowsProcess(fields);
        appeared.push(process);
        now.set(eprocess, process);
      }
    }
    const list = [...now.values()];
    if (!list.some((process) => process.isSystem)) {
      return { status: 'problem', reason: 'the list of processes does not hold the System process' };
    }
    const gone = this.#list.filter((process) => now.get(process.eprocess) !== process);
    this.#byEprocess = now;
    this.#list = list;
    this.#byRoot = new Map();
    for (const process of list) {
      this.#byRoot.set(rootOf(process.cr3), process);
      this.#byRoot.set(rootOf(process.userCr3), process);
    }
    return { status: 'ok', appeared, gone };
  }
}
