import { Access, type Gfn } from '@introd/abi';
import { describe, expect, it, test } from 'vitest';
import type { Capability, FullPort, Port } from '../../port.js';
import { createMockPort } from '../mock-port.js';
import { createSyntheticPort } from '../synthetic-port.js';
import { type ConformanceGuest, conformanceGuest } from './guest.js';
import { conformanceSuite } from './suite.js';

const ALL: readonly Capability[] = ['memory', 'write', 'map', 'registers', 'pause', 'exits', 'page-access', 'inject'];

function syntheticPort(guest: ConformanceGuest) {
  const port = createSyntheticPort({ memory: guest.memoryRegions, vcpus: guest.entries.length });
  for (const part of guest.image) port.writePhysical(part.gpa, part.bytes);
  return port;
}

// Without `skip`: what needs a processor runs on hv-sim, and would only be noise here.
const framework = { describe, it: (name: string, body: () => void) => it(name, body) };

conformanceSuite({
  name: 'the synthetic port',
  capabilities: ALL,
  executes: false,
  start: (guest) => ({ port: syntheticPort(guest) }),
  framework,
});

conformanceSuite({
  name: 'the mock of the synthetic port',
  capabilities: ALL,
  executes: false,
  start: (guest) => ({ port: createMockPort(syntheticPort(guest)).port }),
  framework,
});

conformanceSuite({
  name: 'a port that only reads',
  capabilities: ['memory'],
  executes: false,
  start(guest) {
    const full = syntheticPort(guest);
    const port: Port<'memory'> = {
      backend: 'reader',
      capabilities: new Set<Capability>(['memory']),
      vcpuCount: 1,
      clockOrigin: 0,
      memoryRegions: full.memoryRegions,
      readPhysical: (address, target) => full.readPhysical(address, target),
      close: () => full.close(),
    };
    return { port };
  },
  framework,
});

/** Names of the cases that a port fails. */
function failures(spoil: (port: FullPort) => void, capabilities = ALL): string[] {
  const failed: string[] = [];
  const run = (name: string, body: () => void) => {
    try {
      body();
    } catch (error) {
      expect(error).toBeInstanceOf(Error);
      failed.push(name);
    }
  };
  conformanceSuite({
    name: 'a spoilt port',
    capabilities,
    executes: false,
    start(guest) {
      const { port } = createMockPort(syntheticPort(guest));
      spoil(port);
      return { port };
    },
    framework: { describe: (_name, body) => body(), it: run },
  });
  return failed;
}

describe('the suite', () => {
  test('passes a port that keeps the contract', () => {
    expect(failures(() => {})).toEqual([]);
  });

  test('finds a port that writes half of a range', () => {
    const failed = failures((port) => {
      const write = port.writePhysical;
      port.writePhysical = (address, source) => {
        const done = write(address, source);
        if (!done) write(address, source.subarray(0, 1));
        return done;
      };
    });
    expect(failed).toEqual(['refuses a write that is not wholly RAM, and writes nothing of it']);
  });

  test('finds a port that takes rights which cannot be', () => {
    const failed = failures((port) => {
      const set = port.setPageAccess;
      port.setPageAccess = (frame: Gfn, access) =>
        set(frame, access === Access.WRITE ? Access.READ | Access.WRITE : access);
    });
    expect(failed).toEqual(['refuses rights that no second-level table can express, and frames without RAM']);
  });

  test('finds a port without the members of a capability it names', () => {
    const failed = failures((port) => {
      delete (port as Partial<FullPort>).mapPage;
    });
    expect(failed).toContain('has the members of each capability it names, and no others');
  });

  test('finds a backend that declares something else than its ports have', () => {
    expect(failures(() => {}, ['memory', 'write']).length).toBeGreaterThan(0);
  });
});

test('the guest has its code, page tables and stacks in RAM, apart from each other', () => {
  const guest = conformanceGuest('write', 'second-write');
  let end = 0;
  for (const { gpa, bytes } of guest.image.toSorted((a, b) => a.gpa - b.gpa)) {
    expect(gpa).toBeGreaterThanOrEqual(end);
    end = gpa + bytes.length;
    expect(guest.memoryRegions.some((region) => gpa >= region.start && end <= region.start + region.size)).toBe(true);
  }
  expect(guest.entries).toHaveLength(2);
});
