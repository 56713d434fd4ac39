import { Code, CpuidFeature, InstructionStream, MAX_INSTRUCTION_LENGTH } from '@introd/x86/decoder';
import { instructionForms } from './instruction-forms.js';
import { CODE_BITNESS, CodeMode, OP_RECORD, OpFlag } from './op-layout.js';
import { OpWriter } from './op-writer.js';

const PAGE_SIZE = 4096;

/**
 * Features that every processor with long mode has and that this machine implements in part. A form of another feature
 * that the machine lacks is #UD, as CPUID does not promise it; a form of these stops the machine, because the guest may
 * rely on it.
 */
const PROMISED_FEATURES: ReadonlySet<number> = new Set([
  CpuidFeature.INTEL8086,
  CpuidFeature.INTEL186,
  CpuidFeature.INTEL286,
  CpuidFeature.INTEL386,
  CpuidFeature.INTEL486,
  CpuidFeature.X64,
  CpuidFeature.FPU,
  CpuidFeature.FPU287,
  CpuidFeature.FPU387,
  CpuidFeature.MMX,
  CpuidFeature.SSE,
  CpuidFeature.SSE2,
  CpuidFeature.CMOV,
]);

/** Names, in the decoder's words, of all forms that the machine executes or refuses by itself. */
export function translatedForms(): readonly string[] {
  return [...instructionForms.keys()].map((code) => Code[code]!);
}

/** Turns machine code into op records in linear memory. */
export class Translator {
  readonly #bytes: Uint8Array;
  readonly #op: OpWriter;

  /** @param memory linear memory that holds code and records; it must not grow */
  constructor(memory: ArrayBufferLike) {
    this.#bytes = new Uint8Array(memory);
    this.#op = new OpWriter(memory);
  }

  /**
   * Translates a run of instructions, up to a jump that does not return, the end of the bytes, or `max` records. Bytes
   * that are no instruction give a record that raises #UD; nothing in them makes this throw.
   * @param code offset in linear memory of the first byte
   * @param available bytes from there: to the end of the page, or of the scratch copy of a crossing instruction
   * @param pageOffset offset of the first byte in its guest page
   * @param out offset in linear memory of the first record
   * @param max how many records may be written, at least 1
   * @param crossing the bytes are a scratch copy: one record is written, and marked so that nothing links to it
   * @param mode kind of code, a number of {@link CodeMode}
   * @returns number of records written; 0 when the first instruction needs more bytes than `available`
   */
  translate(
    code: number,
    available: number,
    pageOffset: number,
    out: number,
    max: number,
    crossing = false,
    mode: number = CodeMode.LONG,
  ): number {
    const bitness = CODE_BITNESS[mode]!;
    const stream = new InstructionStream(this.#bytes.subarray(code, code + available), BigInt(pageOffset), bitness);
    this.#op.segmented = bitness !== 64;
    this.#op.flat = mode === CodeMode.FLAT_32;
    try {
      let at = pageOffset;
      let count = 0;
      let record = out;
      const end = crossing ? 1 : max;
      while (count < end && at - pageOffset < available) {
        const failure = stream.next(this.#op.instruction);
        if (failure === 'incomplete') break;
        const length = this.#op.instruction.length;
        this.#emit(record, failure === undefined, length, at, crossing);
        if (count > 0) this.#op.link(record - OP_RECORD.size, record);
        count++;
        record += OP_RECORD.size;
        at += length;
        if (this.#op.ends) break;
      }
      return count;
    } finally {
      stream.free();
    }
  }

  #emit(record: number, valid: boolean, length: number, at: number, crossing: boolean): void {
    const op = this.#op;
    op.begin(record, length, at, crossing ? OpFlag.UNLINKED : at + length < PAGE_SIZE ? OpFlag.NEXT_IN_PAGE : 0);
    if (!valid) {
      // The decoder gives up at 15 bytes whether or not they could be the beginning of something.
      if (length === MAX_INSTRUCTION_LENGTH) op.tooLong();
      else op.invalid();
      return;
    }
    const emit = instructionForms.get(op.instruction.code);
    if (emit) {
      emit(op);
    } else if (op.instruction.cpuidFeatures().every((feature) => PROMISED_FEATURES.has(feature))) {
      op.unsupported();
    } else {
      op.invalid();
    }
  }
}
