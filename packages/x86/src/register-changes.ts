import { u32Index } from '@introd/abi';
import type { ValueSource } from './value-source.js';

const GENERAL = u32Index('rax');

/** Registers that one instruction changes at most: MOVS with REP changes three. */
const MAX_CHANGES = 3;

/** The general registers that an instruction changes, with their values after it. Kept and used again; nothing is allocated. */
export class RegisterChanges {
  /** How many there are; 0 begins anew. */
  count = 0;
  readonly #register = new Uint8Array(MAX_CHANGES);
  readonly #low = new Uint32Array(MAX_CHANGES);
  readonly #high = new Uint32Array(MAX_CHANGES);

  /** All of a register changes. */
  set(register: number, low: number, high: number): void {
    const index = this.count++;
    this.#register[index] = register;
    this.#low[index] = low;
    this.#high[index] = high;
  }

  /**
   * The source register receives a value, by the rules for parts of registers (SDM vol. 1, 3.4.1.1).
   * @param registers of the VCPU before the instruction
   * @param size of the value: 1, 2, 4 or 8 bytes
   */
  setPart(registers: Uint32Array, source: ValueSource, low: number, high: number, size: number): void {
    const at = GENERAL + source.register * 2;
    const before = registers[at]!;
    switch (size) {
      case 8:
        this.set(source.register, low, high);
        break;
      case 4:
        this.set(source.register, low, 0);
        break;
      case 2:
        this.set(source.register, (before & ~0xffff) | (low & 0xffff), registers[at + 1]!);
        break;
      default:
        this.set(
          source.register,
          source.highByte ? (before & ~0xff00) | ((low & 0xff) << 8) : (before & ~0xff) | (low & 0xff),
          registers[at + 1]!,
        );
    }
  }

  /** Adds to a register of which 16, 32 or 64 bits count; 32 bits clear the others, 16 leave them (SDM vol. 1, 3.4.1.1). */
  move(registers: Uint32Array, register: number, by: number, bits: number): void {
    const at = GENERAL + register * 2;
    const before = registers[at]!;
    const low = before + by;
    switch (bits) {
      case 64:
        this.set(register, low, registers[at + 1]! + (low > 0xffff_ffff ? 1 : low < 0 ? -1 : 0));
        break;
      case 32:
        this.set(register, low, 0);
        break;
      default:
        this.set(register, (before & ~0xffff) | (low & 0xffff), registers[at + 1]!);
    }
  }

  /** Whether the register that was changed last is zero then, as far as its low bits count. */
  lastIsZero(bits: number): boolean {
    const last = this.count - 1;
    return bits === 16 ? (this.#low[last]! & 0xffff) === 0 : this.#low[last] === 0 && this.#high[last] === 0;
  }

  /** Gives the VCPU's registers their new values. */
  apply(registers: Uint32Array): void {
    for (let index = 0; index < this.count; index++) {
      const at = GENERAL + this.#register[index]! * 2;
      registers[at] = this.#low[index]!;
      registers[at + 1] = this.#high[index]!;
    }
  }
}
