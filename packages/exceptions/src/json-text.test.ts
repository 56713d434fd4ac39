import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { type JsonNode, JsonSyntaxError, lineAndColumn, parseJsonText } from './json-text.js';

const scale = inject('scale');

function plain(node: JsonNode): unknown {
  if (node.kind === 'object') return Object.fromEntries(node.members.map(({ key, value }) => [key, plain(value)]));
  if (node.kind === 'array') return node.items.map(plain);
  return node.kind === 'null' ? null : node.value;
}

describe('JSON with comments', () => {
  it('reads whatever JSON.parse reads, to the same value', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 6 }), fc.nat(4), (text, indent) => {
        fc.pre(!text.includes('__proto__'));
        const value = JSON.parse(text) as unknown;
        expect(plain(parseJsonText(JSON.stringify(value, undefined, indent)))).toEqual(value);
      }),
      { numRuns: 300 * scale },
    );
  });

  it('accepts exactly what JSON.parse accepts, comments and numbers of silly length aside', () => {
    const accepts = (read: () => unknown) => {
      try {
        read();
        return true;
      } catch {
        return false;
      }
    };
    const soup = fc.array(
      fc.constantFrom(
        '{',
        '}',
        '[',
        ']',
        ',',
        ':',
        '"a"',
        '"b"',
        '1',
        '-0.5e3',
        '01',
        'true',
        'nul',
        ' ',
        '"\\u00zz"',
        '"\t"',
      ),
      { maxLength: 8 },
    );
    fc.assert(
      fc.property(soup, (parts) => {
        const text = parts.join('');
        const keys = parts.filter((part) => part.startsWith('"'));
        fc.pre(new Set(keys).size === keys.length);
        expect(accepts(() => parseJsonText(text))).toBe(accepts(() => JSON.parse(text)));
      }),
      { numRuns: 2000 * scale },
    );
  });

  it('ends in a value or in its own error, whatever the text is', () => {
    const garbage = fc.oneof(
      fc.string(),
      fc.string({ unit: 'binary' }),
      fc.json().chain((json) => fc.nat(json.length).map((at) => json.slice(0, at))),
    );
    fc.assert(
      fc.property(garbage, (text) => {
        try {
          parseJsonText(text);
        } catch (error) {
          expect(error).toBeInstanceOf(JsonSyntaxError);
          expect((error as JsonSyntaxError).offset).toBeLessThanOrEqual(text.length);
        }
      }),
      { numRuns: 1000 * scale },
    );
  });

  it('leaves // inside strings alone', () => {
    expect(plain(parseJsonText('{"a": "http://x" // a comment "b": 1\n}'))).toEqual({ a: 'http://x' });
    expect(plain(parseJsonText('["\\"//", // end'.concat('\n1]')))).toEqual(['"//', 1]);
  });

  it('tells where each value stands', () => {
    const root = parseJsonText('{ "a": [1, "x"] }');
    expect(root.kind === 'object' && root.members[0]!.value.at).toBe(7);
  });

  it.each([
    ['{"a": 1,}', 8, 'remove the comma after the last one'],
    ["{'a': 1}", 1, 'strings stand in double quotes'],
    ['{"a": "\\driver"}', 6, 'a backslash is written twice: "\\\\driver\\\\disk"'],
    ['/* x */ {}', 0, 'only // comments are known'],
    ['{"a": 1, "a": 2}', 9, undefined],
    ['{"a": 1} x', 9, undefined],
    ['', 0, undefined],
    ['"a\nb"', 0, 'a backslash is written twice: "\\\\driver\\\\disk"'],
  ])('refuses %s and says where', (text, offset, hint) => {
    const read = () => parseJsonText(text);
    expect(read).toThrow(JsonSyntaxError);
    try {
      read();
    } catch (error) {
      expect(error).toMatchObject({ offset, hint });
    }
  });

  it.each([
    ['[', 100_000],
    ['{"a":', 100_000],
    ['"', 1_000_000],
    ['1', 1_000_000],
    [' ', 1_000_000],
  ])('survives %s many times over', (part, count) =>
    expect(() => parseJsonText(part.repeat(count))).toThrow(JsonSyntaxError),
  );

  it('refuses a text beyond its limit', () => {
    expect(() => parseJsonText(' '.repeat(16 * 1024 * 1024 + 1))).toThrow(/characters long/);
  });
});

describe('lineAndColumn', () => {
  it.each([
    [0, 1, 1],
    [1, 1, 2],
    [3, 2, 1],
    [5, 2, 3],
  ])('offset %i', (offset, line, column) => expect(lineAndColumn('ab\ncd\n', offset)).toEqual({ line, column }));
});
