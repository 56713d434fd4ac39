import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { WindowsError } from './error.js';
import { betaPolicy, enforcePolicy, offPolicy, parsePolicy } from './policy.js';

const scale = inject('scale');

describe('parsePolicy', () => {
  it('reads what is written, and takes the rest from the enforcing policy', () => {
    expect(parsePolicy('{"schemaVersion": 1, "protections": {}}')).toEqual(enforcePolicy);
    expect(parsePolicy('{"schemaVersion": 1, "protections": {"self-map": "beta"}, "withoutRules": "allow"}')).toEqual({
      schemaVersion: 1,
      protections: { 'self-map': 'beta' },
      withoutRules: 'allow',
    });
  });

  it.each([enforcePolicy, betaPolicy, offPolicy])('reads back a policy that was written', (policy) => {
    expect(parsePolicy(JSON.stringify(policy))).toEqual(policy);
  });

  it.each([
    ['', 'ERR_WINDOWS_POLICY_SYNTAX', 'not JSON', 'a policy looks like'],
    ['{"schemaVersion": 1,}', 'ERR_WINDOWS_POLICY_SYNTAX', 'not JSON', 'a policy looks like'],
    ['[]', 'ERR_WINDOWS_POLICY_INVALID', 'the policy is []', 'object'],
    ['null', 'ERR_WINDOWS_POLICY_INVALID', 'the policy is null', 'object'],
    ['{}', 'ERR_WINDOWS_POLICY_INVALID', '"schemaVersion" is missing', '"schemaVersion": 1'],
    ['{"schemaVersion": 1}', 'ERR_WINDOWS_POLICY_INVALID', '"protections" is missing', 'object'],
    ['{"schemaVersion": 2}', 'ERR_WINDOWS_POLICY_INVALID', '"schemaVersion" is 2', '"schemaVersion": 1'],
    ['{"schemaVersion": 1, "mode": "off"}', 'ERR_WINDOWS_POLICY_INVALID', 'no property "mode"', 'protections'],
    [
      '{"schemaVersion": 1, "protections": {"selfmap": "off"}}',
      'ERR_WINDOWS_POLICY_INVALID',
      'no property "selfmap"',
      'self-map',
    ],
    [
      '{"schemaVersion": 1, "protections": {"self-map": "on"}}',
      'ERR_WINDOWS_POLICY_INVALID',
      '"protections.self-map" is "on"',
      'enforce, beta',
    ],
    [
      '{"schemaVersion": 1, "protections": {}, "withoutRules": true}',
      'ERR_WINDOWS_POLICY_INVALID',
      '"withoutRules" is true',
      'allow, block',
    ],
  ])('refuses %s clearly', (text, code, message, hint) => {
    expect(() => parsePolicy(text)).toThrow(WindowsError);
    try {
      parsePolicy(text);
    } catch (error) {
      expect(error).toMatchObject({
        code,
        message: expect.stringContaining(message),
        hint: expect.stringContaining(hint),
      });
    }
  });

  it('ends in a policy or in its typed error, whatever the text is', () => {
    const word = fc.constantFrom('schemaVersion', 'protections', 'self-map', 'withoutRules', '__proto__');
    const value = fc.oneof(
      fc.constantFrom<unknown>(1, 'enforce', 'off', 'block', null),
      fc.dictionary(word, fc.constantFrom('beta', 1)),
    );
    const text = fc.oneof(
      fc.string(),
      fc.json(),
      fc.dictionary(word, value).map((policy) => JSON.stringify(policy)),
    );
    fc.assert(
      fc.property(text, (source) => {
        try {
          expect(parsePolicy(source).schemaVersion).toBe(1);
        } catch (error) {
          expect(error).toBeInstanceOf(WindowsError);
          expect((error as Error).message.length).toBeLessThan(400);
        }
      }),
      { numRuns: 500 * scale },
    );
  });
});
