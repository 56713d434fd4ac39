import { type Gpa, gfn, gpa } from '@introd/abi';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { type Capability, type FullPort, NO_EXIT, type Port, type PortBase, supports } from './port.js';
import { createSyntheticPort } from './testing.js';

/** A port as an image backend has it: memory at rest, nothing that runs. */
function imagePort(): Port<'memory' | 'map'> {
  const full = createSyntheticPort();
  return {
    backend: 'image',
    capabilities: new Set<Capability>(['memory', 'map']),
    vcpuCount: 1,
    clockOrigin: 0,
    memoryRegions: full.memoryRegions,
    readPhysical: (address: Gpa, target: Uint8Array) => full.readPhysical(address, target),
    mapPage: (frame) => full.mapPage(frame),
    close: () => full.close(),
  };
}

/** Code that needs exits and page access, and says so. */
function watch(port: Port<'exits' | 'page-access'>): number {
  port.setPageAccess(gfn(1), 1);
  port.flushPageAccess();
  return port.next(0);
}

describe('supports', () => {
  test('is true exactly when every capability named is there', () => {
    const image = imagePort();
    expect(supports(image, 'memory')).toBe(true);
    expect(supports(image, 'memory', 'map')).toBe(true);
    expect(supports(image, 'memory', 'exits')).toBe(false);
    expect(supports(image)).toBe(true);
    expect(supports(createSyntheticPort(), 'memory', 'write', 'exits', 'page-access', 'inject')).toBe(true);
  });

  test('narrows the port to what was asked for', () => {
    const port: PortBase = createSyntheticPort();
    if (!supports(port, 'exits', 'page-access')) throw new Error('the synthetic port has every capability');
    expectTypeOf(port).toExtend<Port<'exits' | 'page-access'>>();
    expect(watch(port)).toBe(NO_EXIT);
    // @ts-expect-error injecting was not asked for
    expectTypeOf(port.inject).not.toBeNever();
  });
});

describe('code that needs a capability', () => {
  test('does not compile against a port without it', () => {
    const image = imagePort();
    // @ts-expect-error an image has no exits and no page access
    expect(() => watch(image)).toThrow(TypeError);
    // @ts-expect-error an image cannot be written
    expect(image.writePhysical).toBeUndefined();
    // @ts-expect-error nor does it run
    expect(image.next).toBeUndefined();
    expect(image.readPhysical(gpa(0), new Uint8Array(8))).toBe(true);
  });

  test('takes any port that has more', () => {
    expectTypeOf<FullPort>().toExtend<Port<'memory' | 'exits'>>();
    expectTypeOf<Port<'memory'>>().not.toExtend<Port<'write'>>();
    expectTypeOf<Port>().toEqualTypeOf<Port<'memory'>>();
    expect(watch(createSyntheticPort())).toBe(NO_EXIT);
  });
});
