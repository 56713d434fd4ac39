export { AccessList, accessedAddresses, MAX_ACCESSES } from './accessed-addresses.js';
export { DecodedInstruction, decodeInstruction } from './decoded-instruction.js';
export { type Bitness, type DecodeFailure, MAX_INSTRUCTION_LENGTH } from './decoder.js';
export { instructionText } from './instruction-text.js';
export { MemoryOperand, NO_REGISTER, OperandKind } from './memory-operand.js';
export { StoreEffect } from './store-effect.js';
export { StoreOperation } from './store-operation.js';
export { SourceKind, type ValueSource } from './value-source.js';
export { type VectorRegisters, writtenValue } from './written-value.js';
