import { Access, accessText, hex64, PAGE_SIZE, U64_MASK } from '@introd/abi';
import { CoreHooksError } from './error.js';
import { Paging } from './translation/paging-mode.js';

/** What is wrong with an option, for those who would otherwise wait for calls that never come. */
export function optionsError(message: string, hint: string): CoreHooksError {
  return new CoreHooksError('ERR_CORE_HOOKS_OPTIONS', message, { hint });
}

/** @throws CoreHooksError ERR_CORE_HOOKS_OPTIONS when an option has none of the values that it can have; a missing one is one of them */
export function requireOneOf(option: string, value: unknown, values: readonly unknown[]): void {
  if (value !== undefined && !values.includes(value)) {
    throw optionsError(`${option} cannot be ${String(value)}`, `It is one of ${values.join(', ')}.`);
  }
}

/** @throws CoreHooksError ERR_CORE_HOOKS_OPTIONS */
export function requirePriority(priority: unknown): void {
  if (priority !== undefined && priority !== 'normal' && priority !== 'high') {
    requireOneOf('the priority', priority, ['high', 'normal']);
  }
}

/** @throws CoreHooksError ERR_CORE_HOOKS_OPTIONS when it is not the value of a CR3 */
export function requireAddressSpace(cr3: unknown): void {
  if (typeof cr3 !== 'bigint' || cr3 < 0n || cr3 > U64_MASK) {
    throw optionsError(`the address space cannot be ${String(cr3)}`, 'Pass the value of CR3, a bigint.');
  }
}

/**
 * @param at first byte, physical or linear
 * @param hint how to hook what is longer
 * @throws CoreHooksError ERR_CORE_HOOKS_RANGE unless the bytes are one or more within one page
 */
export function requireWithinPage(at: number | bigint, offset: number, length: number, hint: string): void {
  if (!Number.isInteger(length) || length < 1 || offset + length > PAGE_SIZE) {
    const address = hex64(at);
    throw new CoreHooksError(
      'ERR_CORE_HOOKS_RANGE',
      `a hook of ${String(length)} bytes at ${address} is not within one page`,
      { address, hint },
    );
  }
}

/** @throws CoreHooksError ERR_CORE_HOOKS_ACCESS unless it is exactly one of read, write and execute */
export function requireOneAccess(access: Access, at: number | bigint): void {
  if (access !== Access.READ && access !== Access.WRITE && access !== Access.EXECUTE) {
    throw new CoreHooksError('ERR_CORE_HOOKS_ACCESS', `a hook wants one kind of access, not ${accessText(access)}`, {
      address: hex64(at),
      hint: 'Set one hook for each of read, write and execute.',
    });
  }
}

/** Bits of a linear address by paging mode; the bits above are copies of the highest one (SDM vol. 1, 3.3.7.1). */
const ADDRESS_BITS: Readonly<Record<Paging, number>> = {
  [Paging.NONE]: 32,
  [Paging.BITS_32]: 32,
  [Paging.PAE]: 32,
  [Paging.LEVEL_4]: 48,
  [Paging.LEVEL_5]: 57,
};

/** @throws CoreHooksError ERR_CORE_HOOKS_OPTIONS when nothing can have that address in a paging mode */
export function requireLinearAddress(va: unknown, paging: Paging): void {
  const bits = ADDRESS_BITS[paging];
  const isAddress =
    typeof va === 'bigint' &&
    (bits === 32 ? BigInt.asUintN(32, va) === va : BigInt.asUintN(64, BigInt.asIntN(bits, va)) === va);
  if (!isAddress) {
    throw optionsError(
      `${typeof va === 'bigint' ? `0x${va.toString(16)}` : String(va)} is no address of ${bits} bits`,
      'Pass a canonical address, a bigint.',
    );
  }
}
