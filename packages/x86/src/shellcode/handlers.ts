import { type Instruction, Mnemonic } from '../decoder.js';
import { aesHandlers } from './aes-instructions.js';
import { arithmeticHandlers } from './arithmetic-instructions.js';
import { bitFieldHandlers } from './bit-field-instructions.js';
import { bitHandlers } from './bit-instructions.js';
import { controlFlowHandlers } from './control-flow.js';
import { decimalHandlers } from './decimal-instructions.js';
import type { Handler } from './instruction.js';
import { moveHandlers } from './move-instructions.js';
import { multiplyHandlers } from './multiply-instructions.js';
import { processorStateHandlers } from './processor-state.js';
import { shiftHandlers } from './shift-instructions.js';
import { stackHandlers } from './stack-instructions.js';
import { stringHandlers } from './string-instructions.js';
import { systemHandlers } from './system.js';
import { moveDouble, vectorHandlers } from './vector-instructions.js';
import { laneHandlers } from './vector-lanes.js';
import { x87Handlers } from './x87.js';

const handlers = new Map<Mnemonic, Handler>([
  ...aesHandlers,
  ...arithmeticHandlers,
  ...bitFieldHandlers,
  ...bitHandlers,
  ...controlFlowHandlers,
  ...decimalHandlers,
  ...moveHandlers,
  ...multiplyHandlers,
  ...processorStateHandlers,
  ...shiftHandlers,
  ...stackHandlers,
  ...stringHandlers,
  ...systemHandlers,
  ...laneHandlers,
  ...vectorHandlers,
  ...x87Handlers,
]);

/** What executes an instruction; undefined when nothing does. */
export function handlerOf(instruction: Instruction): Handler | undefined {
  const { mnemonic } = instruction;
  if (!stringHandlers.has(mnemonic) || instruction.isStringInstruction) return handlers.get(mnemonic);
  // SSE2 has a move and a comparison of a double with the names of string instructions.
  return mnemonic === Mnemonic.Movsd ? moveDouble : undefined;
}
