/**
 * The assembler: assembly text in Intel syntax to bytes at given addresses.
 *
 * One statement per line: `label:`, an instruction, or a directive; a `;` begins a comment. A label that begins with a
 * dot belongs to the last label without one. In 64-bit code `[label]` is RIP-relative and `mov rax, label` loads the
 * 64-bit address; elsewhere labels are numbers of 32 or 16 bits, and `[label+eax*4]` is an address too. Branches are near
 * (2 bytes in 16-bit code, else 4) unless they say `short`; `jmp 8:label` is a far one. Directives: `db`, `dw`, `dd`, `dq`
 * (numbers, for `db` also "text", for the others labels), `align N`, `zero N` (N zero bytes).
 */
import { type Bitness, requireBitness } from '../decoder.js';
import { X86Error } from '../error.js';
import { type Encoded, encodeInstruction, type Fixup } from './encode.js';
import { parseOperand, parseValue } from './operand.js';

/** A section of a linked program. */
export interface LinkedSection {
  /** Address of the first byte. */
  readonly address: bigint;
  readonly bytes: Uint8Array;
}

/** A program whose labels all have addresses. */
export interface LinkedProgram {
  readonly sections: ReadonlyMap<string, LinkedSection>;
  /** All labels that the text defines (local ones as `outer.local`) with their addresses. */
  readonly labels: ReadonlyMap<string, bigint>;
}

interface Section {
  readonly address: bigint;
  readonly pad: number;
  bytes: Uint8Array;
  length: number;
  readonly fixups: Fixup[];
}

/** Options of a section. */
export interface SectionOptions {
  /** Byte with which `align` fills, default 0xCC (INT3). */
  readonly pad?: number;
}

/** Options of an {@link Assembler}. */
export interface AssemblerOptions {
  /** Default operand and address size of the code in bits, default 64. */
  readonly bitness?: Bitness;
}

/** Bitness and text of an instruction -> its bytes; the same few hundred lines are assembled again for every guest. */
const encodedLines = new Map<string, Encoded>();
/** Bound of {@link encodedLines}: text with changing numbers must not fill the memory. */
const ENCODED_LINES_LIMIT = 20_000;

const PREFIXES = new Set(['lock', 'rep', 'repe', 'repz', 'repne', 'repnz']);
const DATA_SIZES: Readonly<Record<string, number>> = { db: 1, dw: 2, dd: 4, dq: 8 };
/** The directive that an address needs at least. */
const ADDRESS_DIRECTIVES: Readonly<Record<Bitness, string>> = { 16: 'dw', 32: 'dd', 64: 'dq' };
const LABEL = /^([.$@A-Za-z_?][\w.$@?]*):\s*/;

/** Splits at a separator outside of quotes. */
function splitOutsideQuotes(text: string, separator: string): string[] {
  const parts: string[] = [];
  let quote = '';
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const character = text[i]!;
    if (quote !== '') {
      quote = character === quote ? '' : quote;
    } else if (character === '"' || character === "'") {
      quote = character;
    } else if (character === separator) {
      parts.push(text.slice(start, i).trim());
      start = i + 1;
    }
  }
  parts.push(text.slice(start).trim());
  return parts;
}

function encodeLine(statement: string, bitness: Bitness): Encoded {
  const key = `${bitness} ${statement}`;
  const known = encodedLines.get(key);
  if (known !== undefined) {
    return known;
  }
  const words = /^(\S+)(?:\s+(.*))?$/.exec(statement)!;
  let mnemonic = words[1]!.toLowerCase();
  let rest = words[2] ?? '';
  let prefix: string | undefined;
  if (PREFIXES.has(mnemonic)) {
    prefix = mnemonic;
    const inner = /^(\S+)(?:\s+(.*))?$/.exec(rest);
    mnemonic = inner?.[1]?.toLowerCase() ?? '';
    rest = inner?.[2] ?? '';
  }
  const short = /^short\s+/i.exec(rest);
  if (short !== null) {
    rest = rest.slice(short[0].length);
  }
  const operands = rest === '' ? [] : splitOutsideQuotes(rest, ',').map((text) => parseOperand(text, bitness));
  const encoded = encodeInstruction(mnemonic, operands, prefix, short === null ? 'near' : 'short', bitness);
  if (encodedLines.size >= ENCODED_LINES_LIMIT) {
    encodedLines.clear();
  }
  encodedLines.set(key, encoded);
  return encoded;
}

/** Collects text into sections, then links them. */
export class Assembler {
  readonly #sections = new Map<string, Section>();
  readonly #labels = new Map<string, bigint>();
  readonly #external = new Map<string, bigint>();
  readonly #bitness: Bitness;
  #current: Section | undefined;
  #outerLabel = '';

  /**
   * @param options size of the code
   * @throws X86Error `ERR_X86_OPTIONS` when there is no code of that size
   */
  constructor(options: AssemblerOptions = {}) {
    this.#bitness = options.bitness ?? 64;
    requireBitness(this.#bitness);
  }

  /**
   * Goes on in a section.
   * @param address of its first byte; has to be the same each time
   */
  section(name: string, address: bigint, options: SectionOptions = {}): this {
    let section = this.#sections.get(name);
    if (section === undefined) {
      section = { address, pad: options.pad ?? 0xcc, bytes: new Uint8Array(4096), length: 0, fixups: [] };
      this.#sections.set(name, section);
    } else if (section.address !== address) {
      throw new X86Error('ERR_X86_ASSEMBLY', `section ${name} already begins elsewhere`);
    }
    this.#current = section;
    return this;
  }

  /** Gives a name to an address that lies outside of the program. */
  define(name: string, address: bigint): this {
    this.#external.set(name, address);
    return this;
  }

  /**
   * Appends text to the current section.
   * @throws X86Error with the line in its hint.
   */
  assemble(source: string): this {
    const section = this.#current;
    if (section === undefined) {
      throw new X86Error('ERR_X86_ASSEMBLY', 'no section', { hint: 'call section() first' });
    }
    for (const line of source.split('\n')) {
      try {
        this.#statement(section, splitOutsideQuotes(line, ';')[0]!);
      } catch (error) {
        if (error instanceof X86Error) {
          throw new X86Error('ERR_X86_ASSEMBLY', `${error.message} in "${line.trim()}"`, {
            cause: error,
            ...hintOf(error),
          });
        }
        throw error;
      }
    }
    return this;
  }

  /**
   * Fills in all addresses.
   * @throws X86Error when a label is missing or out of reach.
   */
  link(): LinkedProgram {
    const sections = new Map<string, LinkedSection>();
    for (const [name, section] of this.#sections) {
      const bytes = section.bytes.slice(0, section.length);
      const view = new DataView(bytes.buffer);
      for (const fixup of section.fixups) {
        this.#apply(view, section.address, fixup);
      }
      sections.set(name, { address: section.address, bytes });
    }
    return { sections, labels: this.#labels };
  }

  #statement(section: Section, text: string): void {
    let statement = text;
    for (let label = LABEL.exec(statement); label !== null; label = LABEL.exec(statement)) {
      this.#label(section, label[1]!);
      statement = statement.slice(label[0].length);
    }
    if (statement === '') {
      return;
    }
    const directive = /^(db|dw|dd|dq|align|zero)\s+(.*)$/i.exec(statement);
    if (directive !== null) {
      this.#directive(section, directive[1]!.toLowerCase(), directive[2]!);
      return;
    }
    const { bytes, fixups } = encodeLine(statement, this.#bitness);
    const at = section.length;
    for (const fixup of fixups) {
      section.fixups.push({
        ...fixup,
        offset: fixup.offset + at,
        relativeTo: fixup.relativeTo === undefined ? undefined : fixup.relativeTo + at,
        symbol: this.#fullName(fixup.symbol),
      });
    }
    this.#append(section, bytes);
  }

  #label(section: Section, name: string): void {
    const full = this.#fullName(name)!;
    if (!name.startsWith('.')) {
      this.#outerLabel = name;
    }
    if (this.#labels.has(full) || this.#external.has(full)) {
      throw new X86Error('ERR_X86_ASSEMBLY', `label defined twice: ${full}`);
    }
    this.#labels.set(full, section.address + BigInt(section.length));
  }

  #fullName(symbol: string | undefined): string | undefined {
    return symbol?.startsWith('.') ? `${this.#outerLabel}${symbol}` : symbol;
  }

  #directive(section: Section, name: string, rest: string): void {
    if (name === 'align' || name === 'zero') {
      const count = Number(parseValue(rest).value);
      if (!Number.isInteger(count) || count < 1 || count > 0x100_0000) {
        throw new X86Error('ERR_X86_ASSEMBLY', `not a size: ${rest}`);
      }
      const fill = name === 'zero' ? count : (count - (section.length % count)) % count;
      this.#append(section, new Uint8Array(fill).fill(name === 'zero' ? 0 : section.pad));
      return;
    }
    const size = DATA_SIZES[name]!;
    for (const item of splitOutsideQuotes(rest, ',')) {
      if (size === 1 && item.startsWith('"') && item.endsWith('"')) {
        this.#append(
          section,
          Uint8Array.from(item.slice(1, -1), (character) => character.charCodeAt(0)),
        );
        continue;
      }
      const { value, symbol } = parseValue(item);
      if (symbol !== undefined) {
        // In 64-bit code a shorter address is a mistake; in other code all are short enough for dq too.
        if (size < this.#bitness / 8) {
          throw new X86Error('ERR_X86_ASSEMBLY', `an address needs ${ADDRESS_DIRECTIVES[this.#bitness]}: ${item}`);
        }
        section.fixups.push({
          offset: section.length,
          size,
          relativeTo: undefined,
          symbol: this.#fullName(symbol),
          addend: value,
        });
      }
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
      this.#append(section, bytes.subarray(0, size));
    }
  }

  #append(section: Section, bytes: Uint8Array): void {
    if (section.length + bytes.length > section.bytes.length) {
      const larger = new Uint8Array(Math.max(section.bytes.length * 2, section.length + bytes.length));
      larger.set(section.bytes.subarray(0, section.length));
      section.bytes = larger;
    }
    section.bytes.set(bytes, section.length);
    section.length += bytes.length;
  }

  #apply(view: DataView, address: bigint, fixup: Fixup): void {
    let target = fixup.addend;
    if (fixup.symbol !== undefined) {
      const base = this.#labels.get(fixup.symbol) ?? this.#external.get(fixup.symbol);
      if (base === undefined) {
        throw new X86Error('ERR_X86_ASSEMBLY', `no such label: ${fixup.symbol}`);
      }
      target += base;
    }
    if (fixup.relativeTo === undefined) {
      if (fixup.size < 8 && BigInt.asUintN(fixup.size * 8, target) !== target) {
        throw new X86Error(
          'ERR_X86_ASSEMBLY',
          `address does not fit into ${fixup.size} bytes: ${fixup.symbol ?? target}`,
        );
      }
      put(view, fixup.offset, fixup.size, target);
      return;
    }
    const distance = BigInt.asIntN(64, target - (address + BigInt(fixup.relativeTo)));
    if (BigInt.asIntN(fixup.size * 8, distance) !== distance) {
      throw new X86Error('ERR_X86_ASSEMBLY', `out of reach: ${fixup.symbol ?? target}, distance ${distance}`);
    }
    put(view, fixup.offset, fixup.size, distance);
  }
}

/** Writes a little-endian number of 1, 2, 4 or 8 bytes. */
function put(view: DataView, offset: number, size: number, value: bigint): void {
  for (let at = 0; at < size; at++) {
    view.setUint8(offset + at, Number((value >> BigInt(at * 8)) & 0xffn));
  }
}

function hintOf(error: X86Error): { hint?: string } {
  return error.hint === undefined ? {} : { hint: error.hint };
}
