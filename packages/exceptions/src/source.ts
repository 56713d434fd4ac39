import { ExceptionsError } from './error.js';
import { type JsonMember, type JsonNode, JsonSyntaxError, lineAndColumn, parseJsonText } from './json-text.js';
import {
  compareKernelRules,
  DECIDED_OBJECTS,
  FLAG_WORDS,
  KERNEL_OBJECTS,
  type KernelObjectName,
  type KernelRule,
  RuleFlag,
} from './kernel-rule.js';
import { crc32OfUtf16, hashImageName, PredefinedName } from './name-hash.js';

/** A rule source: HVMI's JSON with `//` comments. */
export interface RuleSource {
  /** Name for messages, usually the file's. */
  readonly name: string;
  readonly text: string;
}

/** Rules read from sources. */
export interface LoadedRules {
  /** In the order in which they are tried. */
  readonly rules: readonly KernelRule[];
  /** What has no effect, counted by what it is. */
  readonly ignored: Readonly<Record<string, number>>;
  /** CRC-32 of the sources' texts, 8 hex digits. */
  readonly revision: string | undefined;
}

/** Source types of HVMI that hold rules which this version does not decide by. */
const OTHER_RULE_TYPES = ['user', 'user-glob-match', 'user-apc', 'kernel-user'];
const KNOWN_TYPES = ['kernel', ...OTHER_RULE_TYPES, 'config'];
const RULE_FIELDS = ['originator', 'victim', 'object_type', 'flags', 'signatures'];
/** Objects that are one of a kind, so that a rule cannot name a victim (behaviour 3.2). */
const OBJECTS_WITHOUT_VICTIM = new Set([
  'msr',
  'ssdt',
  'cr4',
  'idt',
  'idt-reg',
  'gdt-reg',
  'infinity-hook',
  'hal-perf-counter',
  'interrupt-obj',
]);
/** Objects whose integrity rules have no originator: who changed them is not known when a check finds it (behaviour 3.2). */
const OBJECTS_WITHOUT_ORIGINATOR = new Set(['token-privs', 'security-descriptor', 'acl-edit', 'sud-modification']);
const PREDEFINED: Readonly<Record<string, number>> = {
  '*': PredefinedName.ANY,
  '[own]': PredefinedName.OWN,
  '[kernel]': PredefinedName.KERNEL,
  '[hal]': PredefinedName.HAL,
  '-': PredefinedName.NONE,
};
/** Longest name in UTF-16 units: MAX_PATH of Windows. */
const MAX_NAME = 260;

/**
 * Reads rule sources completely, or throws and nothing is loaded.
 * @throws ExceptionsError
 */
export function readRuleSources(sources: readonly RuleSource[]): LoadedRules {
  const rules: KernelRule[] = [];
  const ignored: Record<string, number> = {};
  let revision = 0;
  for (const source of sources) {
    new SourceReader(source, rules, (what, count) => {
      ignored[what] = (ignored[what] ?? 0) + count;
    }).read();
    revision = crc32OfUtf16(source.text, revision);
  }
  if (rules.length === 0 && Object.keys(ignored).length === 0) {
    throw new ExceptionsError(
      'ERR_EXCEPTIONS_EMPTY',
      'there is no rule in the sources',
      { source: sources.map((source) => source.name).join(', ') },
      { hint: 'an engine without rules is made by ExceptionsEngine.withoutRules()' },
    );
  }
  rules.sort(compareKernelRules);
  return { rules, ignored, revision: revision.toString(16).padStart(8, '0') };
}

/** Reads one source. */
class SourceReader {
  constructor(
    private readonly source: RuleSource,
    private readonly rules: KernelRule[],
    private readonly ignore: (what: string, count: number) => void,
  ) {}

  read(): void {
    const root = this.#parse();
    if (root.kind !== 'object') this.#badSource(root, '', 'a source is an object', 'begin it with {"Type": "kernel", ');
    const type = this.#member(root.members, 'Type');
    if (type?.kind !== 'string' || !KNOWN_TYPES.includes(type.value)) {
      this.#badSource(type ?? root, 'Type', `"Type" is not one of ${list(KNOWN_TYPES)}`, suggest(type, KNOWN_TYPES));
    }
    if (type.value === 'config') {
      this.ignore('config', 1);
      return;
    }
    const exceptions = this.#member(root.members, 'Exceptions');
    const signatures = this.#member(root.members, 'Signatures');
    if (!exceptions && !signatures) this.#badSource(root, '', 'neither "Exceptions" nor "Signatures" is there');
    if (signatures) {
      if (signatures.kind !== 'array') this.#badSource(signatures, 'Signatures', '"Signatures" is no list');
      this.ignore('signatures', signatures.items.length);
    }
    if (!exceptions) return;
    if (exceptions.kind !== 'array') this.#badSource(exceptions, 'Exceptions', '"Exceptions" is no list');
    if (type.value === 'kernel') {
      for (const [index, node] of exceptions.items.entries()) this.#kernelRule(node, `Exceptions[${index}]`);
    } else {
      this.ignore(`${type.value} rules`, exceptions.items.length);
    }
  }

  #parse(): JsonNode {
    try {
      return parseJsonText(this.source.text);
    } catch (error) {
      if (!(error instanceof JsonSyntaxError)) throw error;
      throw this.#error('ERR_EXCEPTIONS_SYNTAX', error.offset, '', error.message, error.hint);
    }
  }

  #kernelRule(node: JsonNode, path: string): void {
    if (node.kind !== 'object') this.#badRule(node, path, 'a rule is an object');
    for (const { key, at } of node.members) {
      if (RULE_FIELDS.includes(key)) continue;
      const hint = nearest(key, RULE_FIELDS);
      throw this.#error('ERR_EXCEPTIONS_RULE', at, path, `a kernel rule has no field "${key}"`, hint);
    }
    const object = this.#text(node, path, 'object_type') ?? this.#missing(node, path, 'object_type');
    const flags = this.#flags(node, path);
    const originator = this.#text(node, path, 'originator') ?? this.#implied(node, path, object, flags);
    const victim = this.#text(node, path, 'victim');
    const signatures = this.#signatures(node, path);
    if (!DECIDED_OBJECTS.has(object)) {
      if (victim !== undefined && OBJECTS_WITHOUT_VICTIM.has(object)) {
        this.#badRule(node, `${path}.victim`, `there is only one "${object}", so a rule names no victim`);
      }
      this.ignore(`object "${object}"`, 1);
      return;
    }
    if (flags & RuleFlag.LINUX) {
      this.ignore('linux rules', 1);
      return;
    }
    if (flags & RuleFlag.IGNORE) {
      this.ignore('rules with the flag ignore', 1);
      return;
    }
    this.rules.push({
      name: `${this.source.name}#${path}`,
      originator: this.#name(node, path, 'originator', originator),
      victim: victim === undefined ? PredefinedName.ANY : this.#name(node, path, 'victim', victim),
      flags,
      object: KERNEL_OBJECTS[object as KernelObjectName],
      signatures,
    });
  }

  #flags(node: JsonNode & { kind: 'object' }, path: string): number {
    const text = this.#text(node, path, 'flags') ?? '';
    let flags = 0;
    for (const word of text.split(/\s+/).filter((part) => part !== '')) {
      const bits = Object.hasOwn(FLAG_WORDS, word) ? FLAG_WORDS[word]! : undefined;
      if (bits === undefined) {
        const hint = word === 'return-drv' ? 'write "return", which sets it' : nearest(word, Object.keys(FLAG_WORDS));
        this.#badRule(
          this.#member(node.members, 'flags')!,
          `${path}.flags`,
          `"${word}" is no flag of a kernel rule`,
          hint,
        );
      }
      flags |= bits;
    }
    // Defaults of the original's build tool (behaviour 3.2).
    if ((flags & (RuleFlag.BITS_32 | RuleFlag.BITS_64)) === 0) flags |= RuleFlag.BITS_32 | RuleFlag.BITS_64;
    if ((flags & (RuleFlag.READ | RuleFlag.WRITE | RuleFlag.EXEC)) === 0) flags |= RuleFlag.WRITE;
    return flags >>> 0;
  }

  #signatures(node: JsonNode & { kind: 'object' }, path: string): string[] {
    const found = this.#member(node.members, 'signatures');
    if (found === undefined) return [];
    if (found.kind !== 'array') this.#badRule(found, `${path}.signatures`, '"signatures" is a list of names');
    return found.items.map((item, index) => {
      if (item.kind !== 'string' || item.value === '') {
        this.#badRule(item, `${path}.signatures[${index}]`, 'a signature is named by its sig_id');
      }
      return item.value;
    });
  }

  #name(node: JsonNode & { kind: 'object' }, path: string, field: 'originator' | 'victim', text: string): number {
    const at = this.#member(node.members, field)!;
    if (Object.hasOwn(PREDEFINED, text)) {
      if (field === 'originator' && text === '[own]') {
        this.#badRule(at, `${path}.originator`, '"[own]" can only be a victim', 'name the driver, or write "*"');
      }
      return PREDEFINED[text]!;
    }
    if (text.startsWith('[')) {
      const known = Object.keys(PREDEFINED).filter((name) => name.startsWith('['));
      this.#badRule(at, `${path}.${field}`, `there is no name or group "${text}"`, `known are ${list(known)}`);
    }
    if (text === '' || text.length > MAX_NAME) {
      this.#badRule(at, `${path}.${field}`, `a name has 1 to ${MAX_NAME} characters`, '"-" means code without a name');
    }
    if (/[\\/*?]/.test(text)) {
      const hint = 'kernel rules name a file as it is, without folder and wildcard: "disk.sys"';
      this.#badRule(at, `${path}.${field}`, `"${text}" is no base name`, hint);
    }
    return hashImageName(text);
  }

  #text(node: JsonNode & { kind: 'object' }, path: string, field: string): string | undefined {
    const found = this.#member(node.members, field);
    if (found === undefined) return undefined;
    if (found.kind !== 'string') this.#badRule(found, `${path}.${field}`, `"${field}" is a text`);
    return found.value;
  }

  #member(members: readonly JsonMember[], key: string): JsonNode | undefined {
    return members.find((member) => member.key === key)?.value;
  }

  #implied(node: JsonNode, path: string, object: string, flags: number): string {
    if (flags & RuleFlag.INTEGRITY && OBJECTS_WITHOUT_ORIGINATOR.has(object)) return '-';
    return this.#missing(node, path, 'originator');
  }

  #missing(node: JsonNode, path: string, field: string): never {
    return this.#badRule(node, path, `the rule has no "${field}"`);
  }

  #badRule(node: JsonNode, path: string, message: string, hint?: string): never {
    throw this.#error('ERR_EXCEPTIONS_RULE', node.at, path, message, hint);
  }

  #badSource(node: JsonNode, path: string, message: string, hint?: string): never {
    throw this.#error('ERR_EXCEPTIONS_SOURCE', node.at, path, message, hint);
  }

  #error(code: ExceptionsError['code'], offset: number, path: string, message: string, hint?: string): ExceptionsError {
    const { line, column } = lineAndColumn(this.source.text, offset);
    const place = `${this.source.name}:${line}:${column}${path === '' ? '' : ` (${path})`}`;
    const where = { source: this.source.name, path };
    return new ExceptionsError(code, `${place}: ${message}`, where, hint === undefined ? { offset } : { offset, hint });
  }
}

function list(words: readonly string[]): string {
  return words.map((word) => `"${word}"`).join(', ');
}

function suggest(node: JsonNode | undefined, words: readonly string[]): string | undefined {
  return node?.kind === 'string' ? nearest(node.value, words) : undefined;
}

/** Hint that names the known word nearest to a mistyped one, or all of them. */
function nearest(word: string, words: readonly string[]): string {
  const close = words.find((known) => distance(word.slice(0, 40), known) <= 2);
  return close === undefined ? `known are ${list(words)}` : `did you mean "${close}"?`;
}

/** Number of characters to change, insert or remove to make one word the other. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}
