export { AccessList, MAX_ACCESSES } from './access-list.js';
export { accessedAddresses } from './accessed-addresses.js';
export { DecodedInstruction, type DescriptorInstruction, decodeInstruction } from './decoded-instruction.js';
export { type Bitness, type DecodeFailure, MAX_INSTRUCTION_LENGTH } from './decoder.js';
export { X86Error, type X86ErrorCode } from './error.js';
export { instructionText } from './instruction-text.js';
export {
  type AddressSize,
  MemoryOperand,
  NO_REGISTER,
  OperandKind,
  STACK_ADDRESS,
  type VectorIndex,
} from './memory-operand.js';
export { type Relocation, type RelocationFailure, relocateInstructions } from './relocation.js';
export { StoreEffect } from './store-effect.js';
export { StoreOperation } from './store-operation.js';
export { COUNT_IN_CL, SourceKind, type ValueSource } from './value-source.js';
export type { OperandContext } from './vector-addresses.js';
export { type VectorRegisters, writtenValue } from './written-value.js';
