import { GlueError } from './error.js';
import { NO_ERROR_CODE } from './port.js';

/** Highest vector of an exception (SDM vol. 3A, 6.2). */
const HIGHEST_EXCEPTION = 31;
/** VM entry delivers the low 16 bits of an error code; the others must be zero (SDM vol. 3C, 26.2.1.3). */
const HIGHEST_ERROR_CODE = 0xffff;
/** Vectors that push an error code, a bit each: DF, TS, NP, SS, GP, PF, AC, CP (SDM vol. 3A, table 6-1). */
const WITH_ERROR_CODE = [8, 10, 11, 12, 13, 14, 17, 21].reduce((bits, vector) => bits | (1 << vector), 0);

/** Whether an exception pushes an error code. */
export function hasErrorCode(vector: number): boolean {
  return (WITH_ERROR_CODE & (1 << vector)) !== 0;
}

/**
 * What every backend checks of an exception to be injected, so that none delivers another one instead: a vector of
 * 0..31, and an error code (16 bits) exactly when that exception has one.
 * @throws GlueError ERR_GLUE_BAD_EVENT
 */
export function checkInjectedEvent(vector: number, errorCode: number): void {
  if (!Number.isInteger(vector) || vector < 0 || vector > HIGHEST_EXCEPTION) {
    throw new GlueError('ERR_GLUE_BAD_EVENT', `no exception has the vector ${vector}`, {
      hint: `vectors of exceptions are 0 to ${HIGHEST_EXCEPTION}`,
    });
  }
  if (!hasErrorCode(vector)) {
    if (errorCode === NO_ERROR_CODE) return;
    throw new GlueError('ERR_GLUE_BAD_EVENT', `the exception ${vector} has no error code, not ${errorCode}`, {
      hint: 'pass NO_ERROR_CODE',
    });
  }
  if (!Number.isInteger(errorCode) || errorCode < 0 || errorCode > HIGHEST_ERROR_CODE) {
    throw new GlueError('ERR_GLUE_BAD_EVENT', `the exception ${vector} cannot have the error code ${errorCode}`, {
      hint: `error codes are 0 to 0x${HIGHEST_ERROR_CODE.toString(16)}`,
    });
  }
}
