/**
 * Entry point `@introd/x86/encoder`: an assembler for 16-, 32- and 64-bit code.
 */
export {
  Assembler,
  type AssemblerOptions,
  type LinkedProgram,
  type LinkedSection,
  type SectionOptions,
} from './encoder/assembler.js';
export { X86Error, type X86ErrorCode } from './error.js';
