import { Access } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { baselineRules } from './baseline.js';
import { ExceptionsEngine } from './engine.js';
import { hashImageName, PredefinedName } from './name-hash.js';
import type { KernelCode, KernelQuery } from './query.js';

const engineOf = (...rules: object[]) =>
  ExceptionsEngine.fromJson([
    {
      name: 'r',
      text: JSON.stringify({
        Type: 'kernel',
        Exceptions: rules.map((fields) => ({ originator: '*', object_type: 'selfmap', ...fields })),
      }),
    },
  ]);

function code(name: string | undefined, rest: Partial<KernelCode> = {}): KernelCode {
  const nameHash = name === '[kernel]' ? PredefinedName.KERNEL : hashImageName(name ?? '');
  return { rip: 0x1000n, image: name === undefined ? undefined : { nameHash }, section: '.text', ...rest };
}

type Changes = Partial<Omit<KernelQuery, 'victim'>> & { victim?: Partial<KernelQuery['victim']> };

function query({ victim, ...rest }: Changes = {}): KernelQuery {
  return {
    kind: 'kernel',
    originator: code('evil.sys'),
    returnsTo: undefined,
    victim: { object: 'selfmap', zone: 'ept', access: Access.WRITE, ...victim },
    oldValue: Uint8Array.of(0x63, 0, 0, 0, 0, 0, 0, 0),
    newValue: Uint8Array.of(0x67, 0, 0, 0, 0, 0, 0, 0),
    bits: 64,
    ...rest,
  };
}

const returning = (name: string) => code(name, { rip: 0x2000n });
const zeroes = new Uint8Array(8);

describe('without rules', () => {
  const engine = ExceptionsEngine.withoutRules();
  it('says so, and does what the policy wants', () => {
    expect(engine.loaded).toBe(false);
    expect(engine.ruleCount).toBe(0);
    expect(engine.revision).toBeUndefined();
    expect(engine.decide(query())).toEqual({ action: 'allowed', reason: 'exceptions-not-loaded' });
    expect(engine.decide(query(), 'allow')).toEqual({ action: 'allowed', reason: 'exceptions-not-loaded' });
    expect(engine.decide(query(), 'block')).toEqual({ action: 'not-allowed', reason: 'exceptions-not-loaded' });
  });
});

describe('a rule', () => {
  // Each line: fields of the rule, a query that it lets pass, one that it does not.
  it.each<[string, object, Changes, Changes]>([
    [
      'originator by name',
      { originator: 'Good.sys' },
      { originator: code('GOOD.SYS') },
      { originator: code('bad.sys') },
    ],
    ['originator any', { originator: '*' }, {}, { originator: code(undefined) }],
    ['originator none', { originator: '-' }, { originator: code(undefined) }, {}],
    [
      'originator kernel',
      { originator: '[kernel]' },
      { originator: code('[kernel]') },
      { originator: code('ntoskrnl.exe') },
    ],
    [
      'originator hal',
      { originator: '[hal]' },
      { originator: code('x', { image: { nameHash: PredefinedName.HAL } }) },
      {},
    ],
    ['victim by name', { victim: 'v.sys' }, { victim: { image: { nameHash: hashImageName('v.sys') } } }, {}],
    ['victim none', { victim: '-' }, {}, { victim: { image: { nameHash: hashImageName('v.sys') } } }],
    [
      'victim own',
      { victim: '[own]' },
      { victim: { image: { nameHash: hashImageName('evil.sys') } } },
      { victim: { image: { nameHash: 9 } } },
    ],
    ['object selfmap', {}, {}, { victim: { object: 'msr' } }],
    ['object any', { object_type: 'any' }, { victim: { object: 'idt' } }, { victim: { access: Access.READ } }],
    ['flag write (the default)', {}, {}, { victim: { access: Access.READ } }],
    ['flag write', { flags: 'write' }, {}, { victim: { access: Access.EXECUTE } }],
    ['flag read', { flags: 'read' }, { victim: { access: Access.READ } }, {}],
    ['flag exec', { flags: 'exec' }, { victim: { access: Access.EXECUTE } }, {}],
    [
      'flags 32 and 64 (the default), of a 32-bit guest',
      {},
      { bits: 32 },
      { bits: 32, victim: { access: Access.READ } },
    ],
    ['flag 32', { flags: '32' }, { bits: 32 }, { bits: 64 }],
    ['flag 64', { flags: '64' }, { bits: 64 }, { bits: 32 }],
    ['flag integrity', { flags: 'integrity' }, { victim: { zone: 'integrity' } }, {}],
    ['flag init, old value 0', { flags: 'init' }, { oldValue: zeroes }, {}],
    [
      'flag init, old value 0 of a victim that was set up before',
      { flags: 'init' },
      { oldValue: zeroes },
      { oldValue: zeroes, victim: { initialised: true } },
    ],
    [
      'flag init, kernel start-up code',
      { flags: 'init' },
      { originator: code('[kernel]', { section: 'INIT' }) },
      { originator: code('[kernel]') },
    ],
    [
      'flag init, called by kernel start-up code',
      { flags: 'init' },
      { returnsTo: code('[kernel]', { section: 'INIT', rip: 1n }) },
      { returnsTo: code('x.sys', { section: 'INIT' }) },
    ],
    [
      'flag init, entry point',
      { flags: 'init' },
      { originator: code('x.sys', { isEntryPoint: true }) },
      { originator: code('x.sys', { isEntryPoint: false }) },
    ],
    ['flag non-driver', { originator: '-', flags: 'non-driver' }, { originator: code(undefined) }, {}],
    [
      'flag non-driver of any originator',
      { originator: 'x.sys', flags: 'non-driver return' },
      { originator: code(undefined), returnsTo: returning('x.sys') },
      { returnsTo: returning('x.sys') },
    ],
    [
      'flag return',
      { originator: 'caller.sys', flags: 'return' },
      { returnsTo: returning('caller.sys') },
      { originator: code('caller.sys') },
    ],
    [
      'flag return, code that returns to itself',
      { originator: 'self.sys', flags: 'return' },
      { originator: code('self.sys'), returnsTo: code('self.sys') },
      { originator: code('self.sys'), returnsTo: code('other.sys', { rip: 2n }) },
    ],
    [
      'no flag return',
      { originator: 'caller.sys' },
      { originator: code('caller.sys') },
      { returnsTo: returning('caller.sys') },
    ],
    [
      'flag return, victim own',
      { originator: 'c.sys', victim: '[own]', flags: 'return' },
      { returnsTo: returning('c.sys'), victim: { image: { nameHash: hashImageName('c.sys') } } },
      { returnsTo: returning('c.sys'), victim: { image: { nameHash: hashImageName('evil.sys') } } },
    ],
  ])('with %s lets the one pass and not the other', (_what, fields, passes, stopped) => {
    const engine = engineOf(fields);
    expect(engine.decide(query(passes))).toEqual({ action: 'allowed', reason: 'allowed', rule: 'r#Exceptions[0]' });
    expect(engine.decide(query(stopped))).toEqual({ action: 'not-allowed', reason: 'no-exception' });
  });

  it.each<[string, object, Changes, Changes]>([
    ['any originator', {}, {}, { bits: 32 }],
    [
      'any originator, code without name',
      {},
      { originator: code(undefined) },
      { originator: code(undefined), bits: 32 },
    ],
    ['no name', { originator: '-' }, { originator: code(undefined) }, {}],
    ['a name', { originator: 'x.sys' }, { originator: code('x.sys') }, { returnsTo: returning('x.sys') }],
    [
      'a return name',
      { originator: 'x.sys', flags: 'return feedback 64' },
      { returnsTo: returning('x.sys') },
      { originator: code('x.sys') },
    ],
  ])('with flag feedback and %s lets it pass and has it told', (_what, fields, passes, stopped) => {
    const engine = engineOf({ flags: 'feedback 64', ...fields });
    expect(engine.decide(query(passes))).toEqual({
      action: 'allowed',
      reason: 'allowed-feedback',
      rule: 'r#Exceptions[0]',
    });
    expect(engine.decide(query(stopped))).toEqual({ action: 'not-allowed', reason: 'no-exception' });
  });

  it('with flag ignore or linux lets nothing pass', () => {
    for (const flags of ['ignore', 'linux']) {
      expect(engineOf({ flags }).decide(query()), flags).toEqual({ action: 'not-allowed', reason: 'no-exception' });
    }
  });

  it('with signatures lets nothing pass, and the reason says why', () => {
    const engine = engineOf({ signatures: ['a'] });
    expect(engine.decide(query())).toEqual({ action: 'not-allowed', reason: 'signature-not-matched' });
    expect(engine.decide(query({ bits: 32, victim: { access: Access.READ } }))).toMatchObject({
      reason: 'no-exception',
    });
  });
});

const rule = (decision: { rule?: string }) => decision.rule;

describe('the order of rules', () => {
  it('is generic, named, return, feedback', () => {
    const generic = { originator: '*' };
    const named = { originator: 'evil.sys' };
    const returns = { originator: 'caller.sys', flags: 'return' };
    const feedback = { originator: '*', flags: 'feedback' };
    const asked = query({ returnsTo: returning('caller.sys') });
    expect(rule(engineOf(feedback, returns, named, generic).decide(asked))).toBe('r#Exceptions[3]');
    expect(rule(engineOf(feedback, returns, named).decide(asked))).toBe('r#Exceptions[2]');
    expect(rule(engineOf(feedback, returns).decide(asked))).toBe('r#Exceptions[1]');
    expect(rule(engineOf(feedback).decide(asked))).toBe('r#Exceptions[0]');
  });

  it('goes by object, victim and flags among rules of one originator, not by their place in the file', () => {
    const engine = engineOf({ object_type: 'selfmap' }, { object_type: 'any' });
    expect(rule(engine.decide(query()))).toBe('r#Exceptions[1]');
  });

  it('never tries generic rules on code without a name', () => {
    const engine = engineOf({ originator: '*' }, { originator: '-', flags: '32' });
    expect(engine.decide(query({ originator: code(undefined) }))).toMatchObject({ action: 'not-allowed' });
  });

  it('leaves the reason of the last rule that reached its signatures', () => {
    const engine = engineOf({ originator: '*', signatures: ['a'] }, { originator: 'evil.sys', flags: 'read' });
    expect(engine.decide(query())).toMatchObject({ reason: 'signature-not-matched' });
  });
});

describe('the same value again', () => {
  const same = Uint8Array.of(1, 2, 3, 4);
  it('is allowed before any rule is asked', () => {
    const decision = engineOf({ originator: 'x.sys' }).decide(query({ oldValue: same, newValue: same.slice() }));
    expect(decision).toEqual({ action: 'allowed', reason: 'same-value' });
  });
  it.each<[string, Changes]>([
    ['one byte differs', { newValue: Uint8Array.of(1, 2, 3, 5) }],
    ['it was found by a periodic check', { victim: { zone: 'integrity' } }],
    ['it is no write', { victim: { access: Access.EXECUTE } }],
    ['the lengths differ', { newValue: Uint8Array.of(1, 2, 3) }],
    ['nothing is known of it', { oldValue: new Uint8Array(), newValue: new Uint8Array() }],
  ])('is not meant when %s', (_what, changes) => {
    const asked = query({ oldValue: same, newValue: same.slice(), ...changes });
    expect(engineOf({ originator: 'x.sys' }).decide(asked)).toMatchObject({ reason: 'no-exception' });
  });
});

describe('the baseline', () => {
  const engine = ExceptionsEngine.fromJson(baselineRules);
  it('stops a driver, code without a name, and the kernel itself', () => {
    for (const originator of [code('evil.sys'), code(undefined), code('[kernel]')]) {
      expect(engine.decide(query({ originator }))).toEqual({ action: 'not-allowed', reason: 'no-exception' });
    }
  });
  it('lets the start-up code of the kernel pass and has it told', () => {
    const originator = code('[kernel]', { section: 'INIT' });
    expect(engine.decide(query({ originator }))).toMatchObject({ action: 'allowed', reason: 'allowed-feedback' });
  });
});
