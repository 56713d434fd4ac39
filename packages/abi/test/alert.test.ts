import { readFileSync } from 'node:fs';
import { type Alert, alertJsonSchema, alertTime, assertAlert, isAlert } from '@introd/abi';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';

const scale = inject('scale');
const golden = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`./golden/${name}.json`, import.meta.url), 'utf8'));
const classes = ['alert-ept-violation', 'alert-translation-violation'];

/** Every property of a JSON value as a path. */
function paths(value: unknown, at: string[] = []): string[][] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, member]) => [[...at, key], ...paths(member, [...at, key])]);
}

function withChange(source: unknown, path: string[], change: (owner: Record<string, unknown>, key: string) => void) {
  const copy = structuredClone(source) as Record<string, unknown>;
  let owner = copy;
  for (const key of path.slice(0, -1)) owner = owner[key] as Record<string, unknown>;
  change(owner, path.at(-1)!);
  return copy;
}

describe.each(classes)('%s', (name) => {
  it('is accepted as it stands in the golden file', () => {
    const alert: Alert = assertAlert(golden(name));
    expect(isAlert(alert)).toBe(true);
    expect(JSON.parse(JSON.stringify(alert))).toEqual(golden(name));
  });

  it('is refused when any property has another type', () => {
    const source = golden(name);
    for (const path of paths(source)) {
      const broken = withChange(source, path, (owner, key) => {
        owner[key] = typeof owner[key] === 'object' ? 'text' : { wrong: true };
      });
      expect(isAlert(broken), path.join('.')).toBe(false);
    }
  });

  it('is refused when a property that its class promises is missing', () => {
    const source = golden(name);
    const optional = new Set(['module', 'section', 'returnModule', 'userCr3', 'rule', 'revision', 'process']);
    for (const path of paths(source)) {
      if (optional.has(path.at(-1)!) && path.join('.') !== 'victim.process') continue;
      if (/^\d+$/.test(path.at(-1)!)) continue;
      const broken = withChange(source, path, (owner, key) => {
        delete owner[key];
      });
      expect(isAlert(broken), path.join('.')).toBe(false);
    }
  });

  it('is refused when an address is a number, too long, or upper case', () => {
    for (const value of [4096, '0x12345678901234567', '0xABC', 'abc', '0x', '']) {
      const broken = withChange(golden(name), ['victim', 'address'], (owner, key) => {
        owner[key] = value;
      });
      expect(isAlert(broken), String(value)).toBe(false);
    }
  });
});

describe('the validator', () => {
  it('refuses whatever is not an alert without throwing anything but its own error', () => {
    fc.assert(
      fc.property(fc.anything(), (value) => {
        expect(isAlert(value)).toBe(false);
        expect(() => assertAlert(value)).toThrow(/Error on typia|invalid/i);
      }),
      { numRuns: 100 * scale },
    );
  });
});

describe('the JSON Schema', () => {
  it('is the golden one, so that a change of the contract is seen in review', () => {
    expect(alertJsonSchema).toEqual(golden('alert.schema'));
  });

  it('resolves all its references within itself', () => {
    const text = JSON.stringify(alertJsonSchema);
    const definitions = Object.keys(alertJsonSchema.$defs as object);
    const references = [...text.matchAll(/"(#\/[^"]+)"/g)].map((match) => match[1]!);
    expect(references.length).toBeGreaterThan(5);
    for (const reference of references) expect(definitions).toContain(reference.replace('#/$defs/', ''));
  });
});

describe('alertTime', () => {
  it.each([
    [0, '2024-01-01T00:00:00.000000Z'],
    [1, '2024-01-01T00:00:00.000001Z'],
    [1_000_000, '2024-01-01T00:00:01.000000Z'],
    [86_400_000_000 * 31 + 999_999, '2024-02-01T00:00:00.999999Z'],
  ])('%i µs after the origin', (microseconds, text) => {
    expect(alertTime(Date.UTC(2024, 0, 1), microseconds)).toBe(text);
  });
});
