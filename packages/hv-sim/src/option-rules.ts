import { inspect } from 'node:util';
import { HvSimError } from './error.js';

/** What an option may be. */
export interface OptionRule {
  /** Ends the sentence "the option must be". */
  readonly mustBe: string;
  readonly accepts: (value: unknown) => boolean;
  /** Rules of its parts, when the option is itself an object of options. */
  readonly parts?: { readonly [name: string]: OptionRule };
  /** Whether it must be given. */
  readonly required?: boolean;
}

/** A rule for every property of an options type; those that must be given say so. */
export type OptionRules<T> = {
  readonly [K in keyof T]-?: Record<never, never> extends Pick<T, K>
    ? OptionRule
    : OptionRule & { readonly required: true };
};

/** An integer within bounds. */
export function integer(what: string, lowest: number, highest: number): OptionRule {
  return {
    mustBe: `${what} from ${lowest} to ${highest}`,
    accepts: (value) => Number.isInteger(value) && (value as number) >= lowest && (value as number) <= highest,
  };
}

/** One of a few values. */
export function oneOf(...values: readonly (string | number)[]): OptionRule {
  return {
    mustBe: values.map((value) => inspect(value)).join(' or '),
    accepts: (value) => values.includes(value as string | number),
  };
}

/** An object of further options. */
export function optionGroup<T>(parts: OptionRules<T>): OptionRule {
  return { mustBe: 'an object of options', accepts: isObject, parts };
}

/** A 32-bit register. */
export const REGISTER_32: OptionRule = integer('an integer', 0, 0xffff_ffff);

/** A 64-bit register. */
export const REGISTER_64: OptionRule = {
  mustBe: 'a bigint of 64 bits',
  accepts: (value) => typeof value === 'bigint' && value >= 0n && value < 1n << 64n,
};

/** The same, and it must be given. */
export function required(rule: OptionRule): OptionRule & { readonly required: true } {
  return { ...rule, required: true };
}

function isObject(value: unknown): value is { readonly [name: string]: unknown } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A value in a message, however long or odd it is. */
function show(value: unknown): string {
  return inspect(value, { depth: 0, breakLength: Number.POSITIVE_INFINITY, maxArrayLength: 8, maxStringLength: 80 });
}

/**
 * Refuses options that are not there, unknown, or not what their rule says. `undefined` is as good as absent.
 * @param name what the options are called in messages: `Machine options`, `race`
 * @throws HvSimError ERR_HV_SIM_OPTIONS
 */
export function checkOptions<T>(name: string, options: unknown, rules: OptionRules<T>): asserts options is T {
  const table: { readonly [name: string]: OptionRule } = rules;
  const known = `${name}: ${Object.keys(table).join(', ')}`;
  if (!isObject(options)) {
    throw new HvSimError('ERR_HV_SIM_OPTIONS', `${name} must be an object, not ${show(options)}`, { hint: known });
  }
  for (const key of Object.keys(options)) {
    if (Object.hasOwn(table, key)) continue;
    throw new HvSimError('ERR_HV_SIM_OPTIONS', `${name} has no option ${show(key)}`, { hint: known });
  }
  for (const [key, rule] of Object.entries(table)) {
    const value: unknown = options[key];
    if (value === undefined && !rule.required) continue;
    if (!rule.accepts(value)) {
      throw new HvSimError('ERR_HV_SIM_OPTIONS', `${name}.${key} must be ${rule.mustBe}, not ${show(value)}`, {
        hint: known,
      });
    }
    if (rule.parts) checkOptions(`${name}.${key}`, value, rule.parts);
  }
}
