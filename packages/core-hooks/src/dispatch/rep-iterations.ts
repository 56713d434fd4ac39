import type { ExitsCapability } from '@introd/glue';

/**
 * Whether each element of a repeated string instruction exits. It costs an exit per element, so it is on only while some VCPU is at such
 * an instruction near a hook (behaviour 1.2.4, steps 8 and 12).
 */
export class RepIterations {
  readonly #port: ExitsCapability;
  readonly #wanted: Uint8Array;
  #count = 0;
  #on = false;

  constructor(port: ExitsCapability, vcpus: number) {
    this.#port = port;
    this.#wanted = new Uint8Array(vcpus);
  }

  /** Whether every element exits now. */
  get on(): boolean {
    return this.#on;
  }

  /** A VCPU is at a repeated string instruction near a hook. @throws what the backend throws; nothing is noted then */
  want(index: number): void {
    if (!this.#on) {
      this.#port.setExit({ kind: 'rep-iterations' }, true);
      this.#on = true;
    }
    if (this.#wanted[index] === 0) {
      this.#wanted[index] = 1;
      this.#count++;
    }
  }

  /** A VCPU is at another instruction. @throws what the backend throws; it is tried again at its next exit */
  release(index: number): void {
    if (this.#wanted[index] === 0) {
      return;
    }
    if (this.#count === 1) {
      this.#port.setExit({ kind: 'rep-iterations' }, false);
      this.#on = false;
    }
    this.#wanted[index] = 0;
    this.#count--;
  }

  /** Switches it off for good. @throws what the backend throws */
  close(): void {
    if (this.#on) {
      this.#port.setExit({ kind: 'rep-iterations' }, false);
      this.#on = false;
    }
    this.#wanted.fill(0);
    this.#count = 0;
  }
}
