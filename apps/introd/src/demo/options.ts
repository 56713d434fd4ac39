import { closeSync, openSync, readSync } from 'node:fs';
import { baselineRules, ExceptionsEngine } from '@introd/exceptions';
import type { HostileVariant } from '@introd/guest-lab';
import { betaPolicy, enforcePolicy, offPolicy, type Policy, parsePolicy } from '@introd/windows';
import { CliError } from '../error.js';
import { DEMO_ATTACKS, type DemoAttack } from './scenarios.js';

const HOSTILE_GUESTS: readonly HostileVariant[] = ['triple-fault', 'loop', 'cyclic-processes'];

/** What `introd demo` was asked for, checked. */
export interface DemoOptions {
  readonly attack: DemoAttack;
  /** Seed of the guest's layout and of the choice of attacks, 0 .. 2^32 - 1. */
  readonly seed: number;
  readonly policy: Policy;
  /** `enforce`, `beta`, `off` or `file`. */
  readonly policyName: string;
  /** Exception rules in force. */
  readonly exceptions: ExceptionsEngine;
  /** File for the guest's physical memory at the end of the run. */
  readonly dump?: string;
  /** A guest that is broken on purpose, to show how a failure is told. */
  readonly hostile?: HostileVariant;
}

/** What the command line gives. */
export interface RawDemoOptions {
  readonly attack: string;
  readonly seed: string;
  readonly policy: string;
  readonly exceptions: string;
  readonly dump?: string;
  readonly hostile?: string;
}

const BUILT_IN_POLICIES: Readonly<Record<string, Policy>> = {
  enforce: enforcePolicy,
  beta: betaPolicy,
  off: offPolicy,
};

function oneOf<T extends string>(option: string, value: string, values: readonly T[]): T {
  const found = values.find((candidate) => candidate === value);
  if (found === undefined) {
    throw new CliError('ERR_INTROD_USAGE', `${option} cannot be "${value}"`, {
      hint: `use one of: ${values.join(', ')}`,
    });
  }
  return found;
}

function parseSeed(text: string): number {
  const seed = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (!(seed < 2 ** 32)) {
    throw new CliError('ERR_INTROD_USAGE', `--seed cannot be "${text}"`, {
      hint: 'use a whole number from 0 to 4294967295',
    });
  }
  return seed;
}

/** Largest policy or rules file in bytes: HVMI's own sources are below 100 KB. */
const FILE_LIMIT = 4 * 1024 * 1024;

function readText(option: string, file: string, hint: string): string {
  const buffer = Buffer.alloc(FILE_LIMIT + 1);
  let length = 0;
  try {
    const handle = openSync(file, 'r');
    try {
      // The size of a pipe or a device is not known beforehand.
      for (let more = 1; more > 0 && length <= FILE_LIMIT; length += more) {
        more = readSync(handle, buffer, length, buffer.length - length, null);
      }
    } finally {
      closeSync(handle);
    }
  } catch (cause) {
    throw new CliError('ERR_INTROD_FILE', `${option}: cannot read "${file}": ${(cause as Error).message}`, {
      hint,
      cause,
    });
  }
  if (length > FILE_LIMIT) {
    throw new CliError('ERR_INTROD_FILE', `${option}: "${file}" is larger than ${FILE_LIMIT} bytes`, { hint });
  }
  return buffer.toString('utf8', 0, length);
}

function loadPolicy(text: string): { policy: Policy; policyName: string } {
  const builtIn = Object.hasOwn(BUILT_IN_POLICIES, text) ? BUILT_IN_POLICIES[text] : undefined;
  if (builtIn) return { policy: builtIn, policyName: text };
  const source = readText('--policy', text, 'use enforce, beta, off, or the path of a policy file');
  return { policy: parsePolicy(source), policyName: 'file' };
}

function loadExceptions(text: string): ExceptionsEngine {
  if (text === 'none') return ExceptionsEngine.withoutRules();
  if (text === 'baseline') return ExceptionsEngine.fromJson(baselineRules);
  return ExceptionsEngine.fromJson([
    { name: text, text: readText('--exceptions', text, 'use baseline, none, or the path of a rules file in JSON') },
  ]);
}

/**
 * Checks the command line.
 * @throws CliError ERR_INTROD_USAGE or ERR_INTROD_FILE; what `parsePolicy` and `ExceptionsEngine.fromJson` throw for a bad file
 */
export function parseDemoOptions(raw: RawDemoOptions): DemoOptions {
  if (raw.hostile !== undefined && raw.attack === 'none') {
    throw new CliError('ERR_INTROD_USAGE', '--hostile needs an attack: that is when the guest breaks', {
      hint: 'leave out --attack none',
    });
  }
  return {
    attack: oneOf('--attack', raw.attack, DEMO_ATTACKS),
    seed: parseSeed(raw.seed),
    ...loadPolicy(raw.policy),
    exceptions: loadExceptions(raw.exceptions),
    ...(raw.dump === undefined ? {} : { dump: raw.dump }),
    ...(raw.hostile === undefined ? {} : { hostile: oneOf('--hostile', raw.hostile, HOSTILE_GUESTS) }),
  };
}
