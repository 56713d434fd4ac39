// How an instruction that cannot complete tells the run loop: every function that may fail sets `fault` and returns at
// once; nothing of the instruction has been committed then.
import { BLOCK_SIZE, MAP_BLOCKS, SHUTDOWN_UNSUPPORTED } from './generated/layout';
import { cpu } from './state';

export const FAULT_NONE: i32 = 0;
/** A non-canonical address; the executor makes it #SS(0) or #GP(0). */
export const FAULT_NON_CANONICAL: i32 = 1;
/** An exception, described by {@link faultVector} and its neighbours. */
export const FAULT_EXCEPTION: i32 = 2;
/** An exit; its details are in the VCPU record. */
export const FAULT_EXIT: i32 = 3;
/** The machine lacks what the guest used. */
export const FAULT_UNSUPPORTED: i32 = 4;

/** Why the running instruction stops; one of the FAULT_ numbers. */
export let fault: i32 = 0;
/** Not 0 when the run loop must look at the VCPU before its next instruction. */
export let attention: i32 = 0;

export let faultVector: i32 = 0;
export let faultHasError: i32 = 0;
export let faultError: u32 = 0;
/** CR2 of a page fault. */
export let faultAddress: u64 = 0;

/** Why the machine stopped for good (ShutdownReason), 0 while it runs. */
export let shutdownReason: u32 = 0;
export let powerOffCode: u32 = 0;
/** Number of the VCPU that was the current one then. */
export let shutdownVcpu: u32 = 0;

export const VECTOR_DE: i32 = 0;
export const VECTOR_DB: i32 = 1;
export const VECTOR_BP: i32 = 3;
export const VECTOR_UD: i32 = 6;
export const VECTOR_NM: i32 = 7;
export const VECTOR_DF: i32 = 8;
export const VECTOR_TS: i32 = 10;
export const VECTOR_NP: i32 = 11;
export const VECTOR_SS: i32 = 12;
export const VECTOR_GP: i32 = 13;
export const VECTOR_PF: i32 = 14;
export const VECTOR_MF: i32 = 16;

export function setFault(code: i32): void {
  fault = code;
}

export function clearFault(): void {
  fault = FAULT_NONE;
}

export function setAttention(): void {
  attention = 1;
}

export function clearAttention(): void {
  attention = 0;
}

/** Makes the running instruction end with an exception. */
export function raise(vector: i32, hasError: i32, error: u32): void {
  fault = FAULT_EXCEPTION;
  faultVector = vector;
  faultHasError = hasError;
  faultError = error;
}

/** #UD. */
export function raiseUndefined(): void {
  raise(VECTOR_UD, 0, 0);
}

/** #GP with an error code. */
export function raiseProtection(error: u32): void {
  raise(VECTOR_GP, 1, error);
}

/** #PF: error code bits of the SDM, vol. 3A, figure 4-12. */
export function raisePageFault(address: u64, error: u32): void {
  raise(VECTOR_PF, 1, error);
  faultAddress = address;
}

/** Stops the machine for good. */
export function shutDown(reason: u32, code: u32): void {
  if (shutdownReason != 0) return;
  shutdownReason = reason;
  powerOffCode = code;
  shutdownVcpu = u32((cpu - MAP_BLOCKS) / BLOCK_SIZE);
  attention = 1;
}

/** The guest used what the machine lacks. */
export function unsupported(): void {
  fault = FAULT_UNSUPPORTED;
  shutDown(SHUTDOWN_UNSUPPORTED, 0);
}

export function resetFault(): void {
  fault = 0;
  attention = 0;
  shutdownReason = 0;
  powerOffCode = 0;
}

/** CR2 of the page fault that was raised last. */
export function setFaultAddress(address: u64): void {
  faultAddress = address;
}
