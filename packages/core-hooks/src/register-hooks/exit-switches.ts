import type { ExitsCapability, SwitchedExit } from '@introd/glue';

/** The exits that hooks switch on and off, and whether some hook was removed since the last commit. */
export class ExitSwitches {
  readonly #port: ExitsCapability;
  /** Whether an exit may have to go off. */
  pending = false;

  constructor(port: ExitsCapability) {
    this.#port = port;
  }

  /** @throws what the backend throws */
  turn(exit: SwitchedExit, on: boolean): void {
    this.#port.setExit(exit, on);
  }
}
