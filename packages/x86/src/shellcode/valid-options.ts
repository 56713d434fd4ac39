import { GENERAL_REGISTERS } from '@introd/abi';
import { X86Error } from '../error.js';
import { SEGMENT_REGISTERS, type ShellcodeOptions } from './options.js';

/** Says no to a value of an option. */
type Rule = (value: unknown, name: string) => void;

/** Both halves of the 16 XMM registers. */
const XMM_HALVES = 32;

function refuse(name: string, value: unknown, expected: string): never {
  const shown =
    typeof value === 'object' && value !== null ? `a ${value.constructor?.name ?? 'object'}` : String(value);
  throw new X86Error('ERR_X86_OPTIONS', `${name} is ${shown}`, { hint: `it has to be ${expected}` });
}

function check(expected: string, holds: (value: unknown) => boolean): Rule {
  return (value, name) => {
    if (!holds(value)) refuse(name, value, expected);
  };
}

function oneOf(...values: readonly unknown[]): Rule {
  return check(values.join(' or '), (value) => values.includes(value));
}

function integer(from: number, to: number): Rule {
  return check(
    `an integer from ${from} to ${to}`,
    (value) => Number.isInteger(value) && (value as number) >= from && (value as number) <= to,
  );
}

/** An object with these properties and no other; those that are undefined count as not given. */
function record(rules: Readonly<Record<string, Rule>>, required: readonly string[] = []): Rule {
  return (value, name) => {
    if (typeof value !== 'object' || value === null) refuse(name === '' ? 'the argument' : name, value, 'an object');
    for (const [key, property] of Object.entries(value)) {
      const path = name === '' ? key : `${name}.${key}`;
      const rule = Object.hasOwn(rules, key) ? rules[key] : undefined;
      if (rule === undefined) {
        throw new X86Error('ERR_X86_OPTIONS', `there is no ${path}`, {
          hint: `there are ${Object.keys(rules).join(', ')}`,
        });
      }
      if (property !== undefined || required.includes(key)) rule(property, path);
    }
    for (const key of required) {
      if (!Object.hasOwn(value, key)) refuse(name === '' ? key : `${name}.${key}`, undefined, 'given');
    }
  };
}

function named(names: readonly string[], rule: Rule): Rule {
  return record(Object.fromEntries(names.map((name) => [name, rule])));
}

const COUNT = integer(0, Number.MAX_SAFE_INTEGER);
const BIGINT = check('a bigint', (value) => typeof value === 'bigint');
const BOOLEAN = oneOf(true, false);
const FUNCTION = check('a function', (value) => typeof value === 'function');
const BYTES = check('a Uint8Array', (value) => value instanceof Uint8Array);

const RULES: Readonly<Record<keyof ShellcodeOptions, Rule>> = {
  code: BYTES,
  codeBase: BIGINT,
  bitness: oneOf(32, 64),
  rip: BIGINT,
  ring: oneOf(0, 3),
  registers: named(GENERAL_REGISTERS, BIGINT),
  rflags: BIGINT,
  xmm: check(
    `a BigUint64Array of ${XMM_HALVES}`,
    (value) => value instanceof BigUint64Array && value.length === XMM_HALVES,
  ),
  segments: named(SEGMENT_REGISTERS, record({ selector: integer(0, 0xffff), base: BIGINT }, ['selector', 'base'])),
  controlRegisters: named(['cr0', 'cr2', 'cr3', 'cr4', 'cr8'], BIGINT),
  stack: BYTES,
  stackBase: BIGINT,
  tibBase: BIGINT,
  maxInstructions: COUNT,
  nopThreshold: integer(0, 100),
  stringThreshold: integer(1, Number.MAX_SAFE_INTEGER),
  memoryThreshold: COUNT,
  forceOff: integer(0, 0xffff_ffff),
  stopOnDetection: BOOLEAN,
  bypassSelfWrites: BOOLEAN,
  semantics: oneOf('processor', 'bddisasm'),
  onExternalAccess: FUNCTION,
  onInstruction: FUNCTION,
  onMemoryAccess: FUNCTION,
};

const OPTIONS = record(RULES, ['code', 'codeBase', 'bitness']);

/**
 * Says no to options that cannot be meant: a detector that a mistyped limit has switched off would find every code harmless.
 * @throws X86Error `ERR_X86_OPTIONS`, the name of the option in the message
 */
export function requireValidOptions(options: ShellcodeOptions): void {
  OPTIONS(options, '');
}
