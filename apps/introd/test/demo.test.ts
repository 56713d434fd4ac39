import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { assertAlert } from '@introd/abi';
import {
  type DemoOutcome,
  type DemoRecord,
  type DemoSummary,
  demoRecordSchema,
  isDemoRecord,
  parseDemoOptions,
  runCli,
  runDemo,
} from '@introd/introd';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';

const scale = inject('scale');

interface Ran {
  readonly exitCode: number;
  readonly out: string;
  readonly err: string;
}

function introd(...args: string[]): Ran {
  let out = '';
  let err = '';
  const host = {
    stdout: { write: (text: string) => (out += text) },
    stderr: { write: (text: string) => (err += text) },
    exitCode: 0,
  };
  runCli(args, host, '0.0.0');
  return { exitCode: host.exitCode, out, err };
}

function records(ran: Ran): DemoRecord[] {
  return ran.out
    .trimEnd()
    .split('\n')
    .map((line) => {
      const record: unknown = JSON.parse(line);
      if (!isDemoRecord(record)) throw new Error(`not a demo record: ${line}`);
      return record;
    });
}

const outcomes = (list: DemoRecord[]): DemoOutcome[] => list.filter((record) => record.type === 'outcome');
const summary = (list: DemoRecord[]): DemoSummary => list.find((record) => record.type === 'summary')!;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'introd-demo-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('introd demo --json', () => {
  test('every attack form is stopped, every benign twin is untouched, and the same options give the same bytes', () => {
    const first = introd('demo', '--attack', 'all', '--json', '--seed', '7');
    const second = introd('demo', '--attack', 'all', '--json', '--seed', '7');
    expect(first.exitCode).toBe(0);
    expect(second.out).toBe(first.out);
    const list = records(first);
    expect(outcomes(list).map(({ scenario, result }) => `${scenario} ${result}`)).toEqual([
      'self-map-benign/system untouched',
      'self-map/mov/system blocked',
      'self-map/or/system blocked',
      'self-map/xchg/system blocked',
      'self-map/bts/system blocked',
      'self-map/lock-cmpxchg/system blocked',
      'self-map-benign/ordinary untouched',
      'self-map/mov/ordinary found-late',
      'self-map/or/ordinary found-late',
      'self-map/xchg/ordinary found-late',
      'self-map/bts/ordinary found-late',
      'self-map/lock-cmpxchg/ordinary found-late',
    ]);
    expect(summary(list)).toMatchObject({ alerts: 10, attacks: 10, stopped: 10, benign: 2, untouched: 2, problems: 0 });
  });

  test('a blocked attack reads nothing, a late one is found within one tick and its entry is closed', () => {
    const list = records(introd('demo', '--json', '--seed', '3'));
    const [system, ordinary] = outcomes(list).filter((outcome) => outcome.kind === 'attack');
    expect(system).toMatchObject({ result: 'blocked' });
    expect(system).not.toHaveProperty('userRead');
    expect(BigInt(system!.entry!) & 5n).toBe(1n);
    expect(ordinary).toMatchObject({ result: 'found-late' });
    expect(ordinary!.latency).toBeLessThanOrEqual(1_010_000);
    expect(BigInt(ordinary!.entry!) & 5n).toBe(1n);
  });

  test('alerts are of the published contract', () => {
    const alerts = records(introd('demo', '--json')).filter((record) => record.type === 'alert');
    expect(alerts).toHaveLength(2);
    for (const { alert } of alerts) expect(assertAlert(JSON.parse(JSON.stringify(alert)))).toEqual(alert);
  });

  test('with --policy off ring 3 reads what physical memory holds, and the exit code is 1', () => {
    const ran = introd('demo', '--json', '--policy', 'off');
    expect(ran.exitCode).toBe(1);
    const attacks = outcomes(records(ran)).filter((outcome) => outcome.kind === 'attack');
    expect(attacks).toHaveLength(2);
    for (const attack of attacks) {
      expect(attack.result).toBe('missed');
      expect(attack.userRead).toBe(attack.entry);
      expect(BigInt(attack.userRead!) & 5n).toBe(5n);
    }
  });

  test('with --policy beta attacks are told and let through, and the exit code is 1', () => {
    const ran = introd('demo', '--json', '--policy', 'beta');
    expect(ran.exitCode).toBe(1);
    const list = records(ran);
    expect(
      outcomes(list)
        .filter((outcome) => outcome.kind === 'attack')
        .map((outcome) => outcome.result),
    ).toEqual(['let-through', 'let-through']);
    for (const record of list) if (record.type === 'alert') expect(record.alert.flags).toContain('beta');
  });

  test('without rules the alerts say so, and the policy decides', () => {
    const list = records(introd('demo', '--json', '--exceptions', 'none'));
    const alerts = list.filter((record) => record.type === 'alert').map((record) => record.alert);
    expect(alerts.length).toBeGreaterThan(0);
    for (const alert of alerts) expect(alert.flags).toContain('rules-not-loaded');
    expect(list.find((record) => record.type === 'guest')).toMatchObject({ rulesLoaded: false });
  });

  test('--attack none runs nothing, tells nothing and exits with 0, whatever the policy', () => {
    const ran = introd('demo', '--json', '--attack', 'none', '--policy', 'off');
    expect(ran.exitCode).toBe(0);
    expect(summary(records(ran))).toMatchObject({ alerts: 0, attacks: 0, benign: 0 });
  });

  test('over many seeds every attack is blocked or found within a tick, and nothing else is told', () => {
    const wrong: string[] = [];
    for (let seed = 1; seed <= 10 * scale; seed++) {
      const ran = introd('demo', '--json', '--seed', String(seed));
      const list = records(ran);
      const results = outcomes(list).map((outcome) => outcome.result);
      if (
        ran.exitCode !== 0 ||
        results.join() !== 'untouched,blocked,untouched,found-late' ||
        summary(list).alerts !== 2
      ) {
        wrong.push(`seed ${seed}: exit code ${ran.exitCode}, ${results.join()}`);
      }
    }
    expect(wrong).toEqual([]);
  });
});

test('each line is valid by the exported JSON Schema, and a broken one is not', () => {
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  addFormats.default(ajv);
  const validate = ajv.compile(demoRecordSchema);
  const lines = [
    introd('demo', '--json', '--attack', 'all'),
    introd('demo', '--json', '--policy', 'off'),
    introd('demo', '--json', '--hostile', 'triple-fault'),
  ].flatMap((ran) => ran.out.trimEnd().split('\n'));
  expect(new Set(lines.map((line) => JSON.parse(line).type)).size).toBe(8);
  for (const line of lines) expect(validate(JSON.parse(line)), `${line} ${JSON.stringify(validate.errors)}`).toBe(true);
  const good = JSON.parse(lines[0]!);
  for (const bad of [
    {},
    { foo: 1 },
    { ...good, seed: 'seven' },
    { ...good, time: 'noon' },
    { ...good, schemaVersion: 2 },
  ]) {
    expect(validate(bad), JSON.stringify(bad)).toBe(false);
  }
});

test('the example of the README: records in a program', () => {
  const list: DemoRecord[] = [];
  const options = parseDemoOptions({ attack: 'self-map', seed: '7', policy: 'enforce', exceptions: 'baseline' });
  const { exitCode } = runDemo(options, (record) => list.push(record));
  expect([exitCode, list.filter((record) => record.type === 'alert').length]).toEqual([0, 2]);
  expect(Object.keys(demoRecordSchema.$defs as object)).toEqual(
    expect.arrayContaining(['DemoStart', 'DemoAlert', 'DemoOutcome', 'DemoSummary']),
  );
});

describe('introd demo for people', () => {
  test('says who did what to whom, old and new value, the verdict and the technique', () => {
    const { out, exitCode } = introd('demo', '--seed', '2');
    expect(exitCode).toBe(0);
    expect(out).toContain('Found Windows x64 build 19041');
    expect(out).toMatch(/who .*at 0x[0-9a-f]{16}: /);
    expect(out).toMatch(/what .*self-map-entry of System \(PID 4\)/);
    expect(out).toMatch(/value {8}0x[0-9a-f]+ -> 0x[0-9a-f]+/);
    expect(out).toMatch(/verdict {6}blocked/);
    expect(out).toMatch(/verdict {6}found late, repaired/);
    expect(out).toContain('T1014 Rootkit');
    expect(out).toContain('2 of 2 attacks stopped or found in time, 2 of 2 legitimate programs left alone');
  });

  test('uses no colours when it does not write to a terminal', () => {
    expect(introd('demo', '--attack', 'none').out).not.toContain('\u001b[');
  });

  test('--help names every option and exit code', () => {
    const { out, exitCode } = introd('demo', '--help');
    expect(exitCode).toBe(0);
    for (const word of [
      '--attack',
      '--seed',
      '--policy',
      '--exceptions',
      '--json',
      '--dump',
      '--hostile',
      'Exit codes',
    ]) {
      expect(out).toContain(word);
    }
  });
});

describe('bad input is told, with exit code 2', () => {
  test.each([
    [['demo', '--seed', '-1'], '--seed'],
    [['demo', '--seed', '4294967296'], '4294967295'],
    [['demo', '--seed', 'seven'], 'whole number'],
    [['demo', '--attack', 'everything'], 'self-map, none, all'],
    [['demo', '--policy', 'no-such-file.json'], 'no-such-file.json'],
    [['demo', '--exceptions', 'no-such-file.json'], 'no-such-file.json'],
    [['demo', '--hostile', 'friendly'], 'triple-fault'],
    [['demo', '--dump', path.join('no', 'such', 'folder', 'x.raw')], '--dump'],
    [['demo', '--nonsense'], '--nonsense'],
    [['demo', 'surplus'], 'argument'],
    [['frobnicate'], 'frobnicate'],
  ])('%j', (args, words) => {
    const ran = introd(...args);
    expect(ran.exitCode).toBe(2);
    expect(ran.err).toContain(words);
    expect(ran.out).toBe('');
  });

  test.each([
    ['{', 'policy that is no JSON'],
    ['{"protections":{}}', 'policy without a version'],
    ['{"schemaVersion":1}', 'policy without protections'],
    ['\u001b[2J{}', 'policy with a terminal escape'],
    ['{"schemaVersion":9,"protections":{"self-map":"enforce"},"withoutRules":"allow"}', 'policy of another version'],
    ['{"schemaVersion":1,"protections":{"self-map":"perhaps"},"withoutRules":"allow"}', 'policy with a bad mode'],
  ])('%s (%s)', (text) => {
    const file = path.join(folder, 'bad-policy.json');
    writeFileSync(file, text);
    const ran = introd('demo', '--policy', file);
    expect(ran.exitCode).toBe(2);
    expect(ran.err).toMatch(/\[ERR_[A-Z_]+\]/);
    expect(ran.err).not.toContain('\u001b');
  });

  test('a rules file that is no JSON', () => {
    const file = path.join(folder, 'bad-rules.json');
    writeFileSync(file, '{ "Type": "kernel", "Exceptions": [ }');
    const ran = introd('demo', '--exceptions', file);
    expect(ran.exitCode).toBe(2);
    expect(ran.err).toContain('bad-rules.json');
  });

  test.skipIf(!existsSync('/dev/zero'))('a policy without end (needs /dev/zero)', () => {
    const ran = introd('demo', '--policy', '/dev/zero');
    expect(ran.exitCode).toBe(2);
    expect(ran.err).toContain('larger than');
  });

  test('a policy file that is good works', () => {
    const file = path.join(folder, 'policy.json');
    writeFileSync(file, '{"schemaVersion":1,"protections":{"self-map":"enforce"},"withoutRules":"block"}');
    expect(introd('demo', '--json', '--policy', file).exitCode).toBe(0);
  });
});

describe('a guest that fails ends the demo with a message and exit code 3', () => {
  test.each([
    ['triple-fault', 'ERR_INTROD_GUEST_STOPPED', 'triple fault'],
    ['loop', 'ERR_INTROD_GUEST_STUCK', 'no progress'],
    ['cyclic-processes', 'ERR_INTROD_GUEST_NOT_UNDERSTOOD', 'cycl'],
  ])('%s', (hostile, code, words) => {
    const ran = introd('demo', '--json', '--hostile', hostile);
    expect(ran.exitCode).toBe(3);
    const failure = records(ran).at(-1)!;
    expect(failure).toMatchObject({ type: 'failure', code });
    expect((failure as { message: string }).message).toContain(words);
  });
});

describe('--dump', () => {
  test('writes all of physical memory, raw', () => {
    const file = path.join(folder, 'guest.raw');
    expect(introd('demo', '--attack', 'none', '--dump', file).exitCode).toBe(0);
    expect(statSync(file).size).toBeGreaterThan(16 * 1024 * 1024);
    expect(statSync(file).size % 4096).toBe(0);
  });

  test('writes an ELF core when the file is called .elf', () => {
    const file = path.join(folder, 'guest.elf');
    expect(introd('demo', '--attack', 'none', '--dump', file).exitCode).toBe(0);
    const head = readFileSync(file).subarray(0, 20);
    expect([...head.subarray(0, 5)]).toEqual([0x7f, 0x45, 0x4c, 0x46, 2]);
    // e_type: ET_CORE
    expect(head.readUInt16LE(16)).toBe(4);
  });
});
