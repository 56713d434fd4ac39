import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { baselineRules } from './baseline.js';
import { ExceptionsEngine } from './engine.js';
import { ExceptionsError } from './error.js';

const scale = inject('scale');
const referenceData = process.env.INTROD_REFERENCE_DATA;

const load = (...texts: string[]) =>
  ExceptionsEngine.fromJson(texts.map((text, index) => ({ name: `${index}.json`, text })));
const kernel = (...rules: unknown[]) => JSON.stringify({ Type: 'kernel', Exceptions: rules });
const rule = (fields: object = {}) => ({ originator: '*', object_type: 'selfmap', ...fields });

function errorOf(load: () => unknown): ExceptionsError {
  try {
    load();
  } catch (error) {
    if (error instanceof ExceptionsError) return error;
    throw error;
  }
  throw new Error('was loaded');
}

describe('rule sources', () => {
  it('count what is in force and what is not', () => {
    const engine = load(
      kernel(
        rule(),
        rule({ flags: 'ignore' }),
        rule({ flags: 'linux' }),
        rule({ object_type: 'msr' }),
        rule({ object_type: 'msr' }),
        rule({ object_type: 'of-the-future' }),
        rule({ object_type: '__proto__' }),
      ),
      '{"Type": "user", "Exceptions": [{}, {}]}',
      '{"Type": "kernel", "Signatures": [{}, {}, {}]}',
      '{"Type": "config"}',
    );
    expect(engine.loaded).toBe(true);
    expect(engine.ruleCount).toBe(1);
    expect(engine.ignored).toEqual({
      'rules with the flag ignore': 1,
      'linux rules': 1,
      'object "msr"': 2,
      'object "of-the-future"': 1,
      'object "__proto__"': 1,
      'user rules': 2,
      signatures: 3,
      config: 1,
    });
  });

  it('have a revision that changes with any text', () => {
    expect(load(kernel(rule())).revision).toMatch(/^[0-9a-f]{8}$/);
    expect(load(kernel(rule())).revision).toBe(load(kernel(rule())).revision);
    expect(load(kernel(rule())).revision).not.toBe(load(`${kernel(rule())} `).revision);
  });

  it('of our own load, and all of their rules are in force', () => {
    const engine = ExceptionsEngine.fromJson(baselineRules);
    expect(engine.ruleCount).toBeGreaterThan(0);
    expect(engine.ignored).toEqual({});
  });

  it.skipIf(referenceData === undefined)('of HVMI load (skipped without INTROD_REFERENCE_DATA)', () => {
    const folder = path.join(referenceData!, 'exceptions', 'hvmi-rules');
    const files = readdirSync(folder);
    const engine = ExceptionsEngine.fromJson(
      files.map((name) => ({ name, text: readFileSync(path.join(folder, name), 'utf8') })),
    );
    const kernelRules = Object.entries(engine.ignored).filter(([what]) => what.startsWith('object '));
    // 32 kernel rules and 56 signatures are shipped (behaviour 3.2), none of them about the self-map.
    expect(engine.ruleCount).toBe(0);
    expect(kernelRules.reduce((sum, [, count]) => sum + count, 0)).toBeGreaterThanOrEqual(32);
    expect(engine.ignored.signatures).toBe(56);
    expect(engine.ignored['kernel-user rules']).toBe(4);
  });

  it.each([
    ['text that is no JSON', '{"Type": "kernel", "Exceptions": [', 'ERR_EXCEPTIONS_SYNTAX', '', 34, undefined],
    ['a list', '[]', 'ERR_EXCEPTIONS_SOURCE', '', 0, 'begin it with'],
    ['no type', '{"Exceptions": []}', 'ERR_EXCEPTIONS_SOURCE', 'Type', 0, undefined],
    ['a mistyped type', '{"Type": "kernal"}', 'ERR_EXCEPTIONS_SOURCE', 'Type', 9, 'did you mean "kernel"?'],
    ['neither rules nor signatures', '{"Type": "kernel"}', 'ERR_EXCEPTIONS_SOURCE', '', 0, undefined],
    [
      'rules that are no list',
      '{"Type": "kernel", "Exceptions": {}}',
      'ERR_EXCEPTIONS_SOURCE',
      'Exceptions',
      33,
      undefined,
    ],
    [
      'signatures that are no list',
      '{"Type": "user", "Signatures": 1}',
      'ERR_EXCEPTIONS_SOURCE',
      'Signatures',
      31,
      undefined,
    ],
    ['no rule at all', kernel(), 'ERR_EXCEPTIONS_EMPTY', '', undefined, 'withoutRules'],
    ['a rule that is a text', kernel('x'), 'ERR_EXCEPTIONS_RULE', 'Exceptions[0]', 31, undefined],
    [
      'an unknown field',
      kernel(rule(), rule({ victm: '*' })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[1]',
      116,
      'did you mean "victim"?',
    ],
    ['no originator', kernel({ object_type: 'selfmap' }), 'ERR_EXCEPTIONS_RULE', 'Exceptions[0]', 31, undefined],
    ['no object', kernel({ originator: '*' }), 'ERR_EXCEPTIONS_RULE', 'Exceptions[0]', 31, undefined],
    [
      'an originator that is a number',
      kernel(rule({ originator: 1 })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[0].originator',
      45,
      undefined,
    ],
    [
      'an empty name',
      kernel(rule({ originator: '' })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[0].originator',
      45,
      '"-" means',
    ],
    [
      'a path',
      kernel(rule({ originator: 'drivers\\x.sys' })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[0].originator',
      45,
      'without folder',
    ],
    [
      'a wildcard',
      kernel(rule({ originator: 'nt*' })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[0].originator',
      45,
      'without folder',
    ],
    [
      'a name beyond 260 characters',
      kernel(rule({ victim: 'x'.repeat(261) })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[0].victim',
      undefined,
      undefined,
    ],
    [
      'an unknown group',
      kernel(rule({ originator: '[office apps]' })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[0].originator',
      45,
      '"[kernel]"',
    ],
    [
      'an originator that is its own victim',
      kernel(rule({ originator: '[own]' })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[0].originator',
      45,
      'name the driver',
    ],
    [
      'a mistyped flag',
      kernel(rule({ flags: '64 wirte' })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[0].flags',
      undefined,
      'did you mean "write"?',
    ],
    [
      'the flag return-drv',
      kernel(rule({ flags: 'return-drv' })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[0].flags',
      undefined,
      'write "return"',
    ],
    [
      'a flag named as a member of every object',
      kernel(rule({ flags: 'constructor' })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[0].flags',
      undefined,
      'known are',
    ],
    [
      'signatures that are a text',
      kernel(rule({ signatures: 'x' })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[0].signatures',
      undefined,
      undefined,
    ],
    [
      'a signature that is a number',
      kernel(rule({ signatures: ['a', 5] })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[0].signatures[1]',
      undefined,
      undefined,
    ],
    [
      'a victim where there is only one',
      kernel(rule({ object_type: 'msr', victim: 'x' })),
      'ERR_EXCEPTIONS_RULE',
      'Exceptions[0].victim',
      undefined,
      undefined,
    ],
  ])('refuse %s, say where and what to do', (_what, text, code, place, offset, hint) => {
    const error = errorOf(() => load(text));
    expect(error.code).toBe(code);
    expect(error.source).toBe('0.json');
    expect(error.path).toBe(place);
    if (offset !== undefined) expect(error.offset).toBe(offset);
    if (hint !== undefined) expect(error.hint).toContain(hint);
    if (code !== 'ERR_EXCEPTIONS_EMPTY') expect(error.message).toMatch(/^0\.json:\d+:\d+/);
  });

  it('name the source that is bad, and load nothing of the good one', () => {
    const error = errorOf(() => load(kernel(rule()), kernel(rule({ flags: 'x' }))));
    expect(error.source).toBe('1.json');
  });

  it('end in an engine or in the typed error, whatever the text is', () => {
    const word = fc.constantFrom(
      'Type',
      'kernel',
      'user',
      'Exceptions',
      'Signatures',
      'originator',
      'victim',
      'object_type',
      'flags',
      'signatures',
      'selfmap',
      'any',
      '*',
      '-',
      '[kernel]',
      '64 write',
      'x.sys',
      '__proto__',
    );
    const value = fc.letrec((tie) => ({
      node: fc.oneof(
        { maxDepth: 4 },
        word,
        fc.integer(),
        fc.boolean(),
        fc.constant(null),
        fc.array(tie('node'), { maxLength: 4 }),
        fc.dictionary(word, tie('node'), { maxKeys: 6 }),
      ),
    })).node;
    const source = fc.oneof(
      fc.string(),
      fc.jsonValue().map((json) => JSON.stringify(json)),
      value.map((json) => JSON.stringify(json)),
      fc.array(fc.dictionary(word, value, { maxKeys: 5 }), { maxLength: 3 }).map((rules) => kernel(...rules)),
      fc.nat(200).map((at) => baselineRules[0]!.text.slice(0, at)),
    );
    fc.assert(
      fc.property(source, (text) => {
        try {
          expect(load(text).loaded).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(ExceptionsError);
          expect((error as ExceptionsError).code).toMatch(/^ERR_EXCEPTIONS_/);
        }
      }),
      { numRuns: 1000 * scale },
    );
  });
});
