import { type Cr3, GENERAL_REGISTERS, type GeneralRegister, type Gva, type VcpuRecord } from '@introd/abi';
import { RegisterGroup, type RegistersCapability } from '@introd/glue';
import { storeRegisters } from '../dispatch/store-registers.js';
import type { EngineProblemKind } from '../engine-problem.js';
import type { GuestMemory } from '../translation/guest-memory.js';
import type { ArgumentLocation } from './descriptor.js';
import type { Detour } from './detour.js';

/** The calling conventions of kernel code: four registers and the stack slots above the shadow space, or the stack. */
const DEFAULT_ARGUMENTS: Readonly<Record<32 | 64, readonly ArgumentLocation[]>> = {
  64: [
    { register: 1 },
    { register: 2 },
    { register: 8 },
    { register: 9 },
    { stack: 5 },
    { stack: 6 },
    { stack: 7 },
    { stack: 8 },
  ],
  32: [1, 2, 3, 4, 5, 6, 7, 8].map((stack) => ({ stack })),
};

/** Most arguments of a function. */
export const MAX_ARGUMENTS = 8;
/** Furthest stack slot that holds an argument. */
export const MAX_SLOT = 64;

/** What shall happen after the callback. */
type Outcome = 'continue' | 'disable' | 'remove-and-restart';

/** What a {@link DetourCall} needs of the engine. */
export interface CallContext {
  readonly port: RegistersCapability;
  report(kind: EngineProblemKind, message: string, cause?: unknown): void;
  readonly memory: Pick<GuestMemory, 'readVirtual' | 'safeWrite'>;
}

/** A guest has called a detoured function and stands at the hypercall of its handler. To be used inside the callback only. */
export class DetourCall {
  readonly detour: Detour;
  readonly vcpu: VcpuRecord;
  readonly vcpuIndex: number;
  readonly #context: CallContext;
  readonly #bitness: 32 | 64;
  /** @internal */
  outcome: Outcome = 'continue';
  /** @internal Bytes behind the hypercall that are not executed. */
  skipped = 0;

  /** @internal */
  constructor(detour: Detour, vcpu: VcpuRecord, vcpuIndex: number, context: CallContext, bitness: 32 | 64) {
    this.detour = detour;
    this.vcpu = vcpu;
    this.vcpuIndex = vcpuIndex;
    this.#context = context;
    this.#bitness = bitness;
  }

  /** Where the arguments are. */
  get #locations(): readonly ArgumentLocation[] {
    return this.detour.argumentLocations ?? DEFAULT_ARGUMENTS[this.#bitness];
  }

  /** The argument of a number, from 0; undefined when the function has none of it, or the stack cannot be read. */
  argument(index: number): bigint | undefined {
    const location = index < MAX_ARGUMENTS ? this.#locations[index] : undefined;
    if (location === undefined) {
      return undefined;
    }
    if ('register' in location) {
      const name = this.#registerOf(location.register);
      return name === undefined ? undefined : BigInt.asUintN(this.#bitness, this.vcpu.get(name));
    }
    const va = this.#stackSlot(location.stack);
    const bytes = new Uint8Array(8);
    const word = bytes.subarray(0, this.#bitness / 8);
    if (va === undefined || this.#context.memory.readVirtual(this.vcpu.cr3, va, word).status !== 'ok') {
      return undefined;
    }
    return new DataView(bytes.buffer).getBigUint64(0, true);
  }

  /** The first arguments, at most 8; undefined when one of them is not there. */
  arguments(count: number): bigint[] | undefined {
    const values: bigint[] = [];
    for (let index = 0; index < count; index++) {
      const value = this.argument(index);
      if (value === undefined) {
        return undefined;
      }
      values.push(value);
    }
    return values;
  }

  /**
   * Changes an argument, for the function and for the rest of the handler.
   * @returns false, and nothing is changed, when the function has none of that number, its stack must not be written by the kernel, or the
   *   backend refuses the register
   * @throws what the backend throws when it refuses to write to the stack
   */
  setArgument(index: number, value: bigint): boolean {
    const location = index < MAX_ARGUMENTS ? this.#locations[index] : undefined;
    if (location === undefined) {
      return false;
    }
    if ('register' in location) {
      const name = this.#registerOf(location.register);
      return name !== undefined && this.#setRegister(name, value);
    }
    const va = this.#stackSlot(location.stack);
    if (va === undefined) {
      return false;
    }
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
    const word = bytes.subarray(0, this.#bitness / 8);
    return this.#context.memory.safeWrite(this.vcpu.cr3 as Cr3, va, word, 0).status === 'ok';
  }

  /**
   * Answers the handler, which must be written to look at it: in RAX after an INT3, in RSI after a VMCALL.
   * @returns false, and nothing is changed, when the backend refuses the register
   */
  setReturnValue(value: bigint): boolean {
    return this.#setRegister(this.detour.hypercallKind === 'vmcall' ? 'rsi' : 'rax', value);
  }

  /** The handler goes on so many bytes behind the hypercall: how it is made to take its other way (deny the call, return). */
  skip(bytes: number): void {
    this.skipped = bytes;
  }

  /** After this call the function is as it was. The handler stays, without its hypercall, for threads that are inside. */
  disableDetour(): void {
    this.outcome = 'disable';
  }

  /** The same, and this call begins anew at the function itself. Not for handlers with VMCALL, where it is refused. */
  removeAndRestart(): void {
    this.outcome = 'remove-and-restart';
  }

  /** @internal Puts RIP somewhere else. @returns false, and it is where it was, when the backend refuses that */
  jump(va: bigint): boolean {
    return this.#setRegister('rip', va);
  }

  #registerOf(number: number): GeneralRegister | undefined {
    return number < (this.#bitness === 64 ? 16 : 8) ? GENERAL_REGISTERS[number] : undefined;
  }

  #setRegister(name: GeneralRegister | 'rip', value: bigint): boolean {
    const before = this.vcpu.get(name);
    this.vcpu.set(name, BigInt.asUintN(this.#bitness, value));
    const stored = storeRegisters(this.#context, this.vcpuIndex, RegisterGroup.GENERAL);
    if (!stored) {
      this.vcpu.set(name, before);
    }
    return stored;
  }

  #stackSlot(slot: number): Gva | undefined {
    if (!Number.isInteger(slot) || slot < 0 || slot > MAX_SLOT) {
      return undefined;
    }
    const rsp = BigInt.asUintN(this.#bitness, this.vcpu.get('rsp'));
    return BigInt.asUintN(this.#bitness, rsp + BigInt(slot * (this.#bitness / 8))) as Gva;
  }
}
