import type { ExitsCapability, SwitchedExit } from '@introd/glue';
import type { PendingCommits } from '../page-hooks/pending-commits.js';

/** The exits that hooks switch on and off, and whether some hook was removed since the last commit. */
export class ExitSwitches {
  readonly #port: ExitsCapability;
  readonly #commits: PendingCommits;
  #pending = false;

  constructor(port: ExitsCapability, commits: PendingCommits) {
    this.#port = port;
    this.#commits = commits;
  }

  /** Whether an exit may have to go off. */
  get pending(): boolean {
    return this.#pending;
  }

  set pending(value: boolean) {
    this.#pending = value;
    this.#commits.any ||= value;
  }

  /** @throws what the backend throws */
  turn(exit: SwitchedExit, on: boolean): void {
    this.#port.setExit(exit, on);
  }
}
