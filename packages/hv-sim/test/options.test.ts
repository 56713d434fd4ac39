import { gpa } from '@introd/abi';
import { expect, test } from 'vitest';
import {
  enterCompatibilityMode,
  enterLongMode,
  enterProtectedMode,
  Machine,
  type MachineOptions,
  type RaceOptions,
} from '../src/index.js';

const memory = [{ start: gpa(0), size: 0x1000 }];
const long = { cr3: 0n, rip: 0n, rsp: 0n };
const flat = { eip: 0, esp: 0 };

/** What a caller without types may pass. */
const make = (options: unknown) => new Machine(options as MachineOptions);

const refusal = (message: string) => expect.objectContaining({ code: 'ERR_HV_SIM_OPTIONS', message });

test.each<[unknown, string]>([
  [undefined, 'Machine options must be an object, not undefined'],
  [[], 'Machine options must be an object, not []'],
  [{}, 'Machine options.memory must be an array of regions { start, size }, not undefined'],
  [{ memory: [null] }, 'Machine options.memory must be an array of regions { start, size }, not [ null ]'],
  [{ memory, ram: 1 }, "Machine options has no option 'ram'"],
  [{ memory, vcpus: 9 }, 'Machine options.vcpus must be a number of VCPUs from 1 to 8, not 9'],
  [{ memory, vcpus: '2' }, "Machine options.vcpus must be a number of VCPUs from 1 to 8, not '2'"],
  [{ memory, quantum: 0 }, 'Machine options.quantum must be a number of instructions from 1 to 1000000, not 0'],
  [{ memory, interleave: 'random' }, "Machine options.interleave must be 'round-robin' or 'seeded', not 'random'"],
  [{ memory, seed: Number.NaN }, 'Machine options.seed must be an integer below 2^53, not NaN'],
  [{ memory, seed: 'x' }, "Machine options.seed must be an integer below 2^53, not 'x'"],
  [{ memory, clockOrigin: Number.NaN }, 'Machine options.clockOrigin must be a Unix time in milliseconds, not NaN'],
  [{ memory, race: null }, 'Machine options.race must be an object of options, not null'],
  [{ memory, race: { betweenFaultAndDelivry: 5 } }, "Machine options.race has no option 'betweenFaultAndDelivry'"],
  [{ memory, chaos: { loseInjection: 1 } }, "Machine options.chaos has no option 'loseInjection'"],
  [
    { memory, chaos: { loseInjections: 'all' } },
    'Machine options.chaos.loseInjections must be a share from 0 to 1 or an array of numbers of calls, the first being 1, ' +
      "not 'all'",
  ],
])('no machine is made of %j', (options, message) => {
  expect(() => make(options)).toThrow(refusal(message));
});

test('the hint names the options that there are', () => {
  const race = { betweenFaultAndDelivry: 5 } as RaceOptions;
  expect(() => make({ memory, race })).toThrow(
    expect.objectContaining({
      hint: 'Machine options.race: betweenFaultAndDelivery, insideCalls, betweenReplyAndRetry',
    }),
  );
});

test('options that are undefined are as good as absent', () => {
  const machine = make({ memory, vcpus: undefined, seed: undefined, race: { insideCalls: undefined } });
  expect([machine.vcpuCount, machine.clockOrigin]).toEqual([1, Date.UTC(2024, 0, 1)]);
});

test.each<[(state: never) => void, unknown, string]>([
  [(state) => enterLongMode(new Machine({ memory }).vcpu(0), state), { ...long, levels: 3 }, 'levels must be 4 or 5'],
  [(state) => enterLongMode(new Machine({ memory }).vcpu(0), state), { ...long, cr3: 0 }, 'cr3 must be a bigint'],
  [(state) => enterLongMode(new Machine({ memory }).vcpu(0), state), { ...long, rip: -1n }, 'rip must be a bigint'],
  [(state) => enterCompatibilityMode(new Machine({ memory }).vcpu(0), state), { cr3: 0n, eip: 0 }, 'esp must be an'],
  [
    (state) => enterProtectedMode(new Machine({ memory }).vcpu(0), state),
    { ...flat, paging: 'PAE' },
    "paging must be 'none' or '32-bit' or 'pae'",
  ],
  [(state) => enterProtectedMode(new Machine({ memory }).vcpu(0), state), { paging: 'pae', ...flat, rip: 0n }, "'rip'"],
])('%o refuses the state %o', (enter, state, message) => {
  expect(() => enter(state as never)).toThrow(refusal(expect.stringContaining(message)));
});
