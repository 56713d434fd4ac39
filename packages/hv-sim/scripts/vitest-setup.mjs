// Global set-up of vitest: tests of any package may run the machine, also in a checkout that has not been built.
import { buildWasm } from './build-wasm.mjs';

export const setup = buildWasm;
