/**
 * Reader of the JSON that rule authors write: with `//` comments outside strings. Every value keeps the offset at which
 * it stands, so that a rule that is refused can be pointed at.
 */

/** A value with the offset (in UTF-16 units) of its first character. */
export type JsonNode =
  | { readonly kind: 'object'; readonly at: number; readonly members: readonly JsonMember[] }
  | { readonly kind: 'array'; readonly at: number; readonly items: readonly JsonNode[] }
  | { readonly kind: 'string'; readonly at: number; readonly value: string }
  | { readonly kind: 'number'; readonly at: number; readonly value: number }
  | { readonly kind: 'boolean'; readonly at: number; readonly value: boolean }
  | { readonly kind: 'null'; readonly at: number };

/** One `"key": value` of an object. */
export interface JsonMember {
  readonly key: string;
  readonly at: number;
  readonly value: JsonNode;
}

/** Text that is not JSON: what was expected, and at which offset. */
export class JsonSyntaxError extends Error {
  constructor(
    message: string,
    readonly offset: number,
    readonly hint: string | undefined,
  ) {
    super(message);
  }
}

/** Rule sources nest four levels; deeper text is hostile or a mistake, and must not exhaust the stack. */
const MAX_DEPTH = 32;
/** Longest source in UTF-16 units. All of HVMI's stock sources together are 200 KiB. */
const MAX_LENGTH = 16 * 1024 * 1024;

const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
/** Longest number in characters; rules know none longer than a 64-bit value. */
const MAX_NUMBER = 32;
const WORDS = { true: true, false: false, null: null } as const;

/**
 * Reads one JSON value and nothing after it.
 * @throws JsonSyntaxError
 */
export function parseJsonText(text: string): JsonNode {
  if (text.length > MAX_LENGTH) {
    throw new JsonSyntaxError(`the source is ${text.length} characters long`, 0, `the limit is ${MAX_LENGTH}`);
  }
  let at = text.startsWith('\ufeff') ? 1 : 0;

  function skipBlanks(): void {
    for (;;) {
      const char = text[at];
      if (char === ' ' || char === '\n' || char === '\r' || char === '\t') at += 1;
      else if (char === '/' && text[at + 1] === '/') {
        const end = text.indexOf('\n', at);
        at = end < 0 ? text.length : end;
      } else return;
    }
  }

  function fail(expected: string, hint?: string): never {
    const found = at >= text.length ? 'the end of the text' : JSON.stringify(text[at]);
    throw new JsonSyntaxError(`expected ${expected}, found ${found}`, at, hint);
  }

  function string(expected: string): string {
    if (text[at] !== '"') fail(expected, text[at] === "'" ? 'strings stand in double quotes' : undefined);
    const start = at;
    do {
      at += text[at] === '\\' ? 2 : 1;
    } while (at < text.length && text[at] !== '"' && text[at] !== '\n');
    at += 1;
    try {
      return JSON.parse(text.slice(start, at)) as string;
    } catch {
      at = start;
      return fail('a string that ends on its line', 'a backslash is written twice: "\\\\driver\\\\disk"');
    }
  }

  /** Reads `item, item, ...` up to `close`. */
  function list(close: string, item: () => void): void {
    at += 1;
    skipBlanks();
    if (text[at] === close) {
      at += 1;
      return;
    }
    for (;;) {
      item();
      skipBlanks();
      if (text[at] === close) {
        at += 1;
        return;
      }
      if (text[at] !== ',') fail(`"," or "${close}"`);
      at += 1;
      skipBlanks();
      if (text[at] === close) fail('another value', 'remove the comma after the last one');
    }
  }

  function value(depth: number): JsonNode {
    if (depth > MAX_DEPTH) fail(`at most ${MAX_DEPTH} levels of nesting`);
    skipBlanks();
    const start = at;
    const first = text[at];
    if (first === '{') {
      const members: JsonMember[] = [];
      const keys = new Set<string>();
      list('}', () => {
        const keyAt = at;
        const key = string('a name in double quotes');
        if (keys.has(key)) {
          at = keyAt;
          fail(`each name once, but "${key}" is here twice`);
        }
        keys.add(key);
        skipBlanks();
        if (text[at] !== ':') fail('":"');
        at += 1;
        members.push({ key, at: keyAt, value: value(depth + 1) });
      });
      return { kind: 'object', at: start, members };
    }
    if (first === '[') {
      const items: JsonNode[] = [];
      list(']', () => items.push(value(depth + 1)));
      return { kind: 'array', at: start, items };
    }
    if (first === '"') return { kind: 'string', at: start, value: string('a string') };
    for (const [word, meaning] of Object.entries(WORDS)) {
      if (!text.startsWith(word, at)) continue;
      at += word.length;
      return meaning === null ? { kind: 'null', at: start } : { kind: 'boolean', at: start, value: meaning };
    }
    while (at - start <= MAX_NUMBER && at < text.length && '+-.0123456789eE'.includes(text[at]!)) at += 1;
    const number = text.slice(start, at);
    if (!NUMBER.test(number)) {
      at = start;
      fail('a value', first === '/' ? 'only // comments are known' : undefined);
    }
    return { kind: 'number', at: start, value: Number(number) };
  }

  const node = value(0);
  skipBlanks();
  if (at < text.length) fail('the end of the text');
  return node;
}

/** Line and column, both from 1, of an offset. */
export function lineAndColumn(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset);
  const line = before.split('\n').length;
  return { line, column: offset - before.lastIndexOf('\n') };
}
