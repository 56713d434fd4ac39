/**
 * Entry point `@introd/x86/encoder`: an assembler for 64-bit code.
 */
export { Assembler, type LinkedProgram, type LinkedSection, type SectionOptions } from './encoder/assembler.js';
export { AssemblyError } from './encoder/error.js';
