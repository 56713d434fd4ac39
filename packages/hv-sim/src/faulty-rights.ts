import type { Access } from '@introd/abi';
import type { ChaosDraw } from './chaos.js';
import type { MachineCore } from './machine-core.js';

/** Second-level rights as the engine sets them; some changes are lost on their way to the VCPUs. */
export class FaultyRights {
  /** Rights that were set and lost, by position of the frame in RAM. */
  readonly #lost = new Map<number, Access>();
  /** Changes lost so far. */
  lostChanges = 0;

  constructor(
    private readonly core: MachineCore,
    private readonly chaos: ChaosDraw,
  ) {}

  /** Rights of a frame as they were set last. */
  get(position: number): Access {
    return this.#lost.get(position) ?? this.core.rightsAt(position);
  }

  /** Sets rights; a change may be lost, the next one of the same frame is not. */
  set(position: number, access: Access): void {
    if (!this.#lost.delete(position) && access !== this.core.rightsAt(position) && this.chaos.next()) {
      this.#lost.set(position, access);
      this.lostChanges++;
      return;
    }
    this.core.setRightsAt(position, access);
  }
}
