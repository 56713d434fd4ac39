import { type AlertOriginator, type Gva, hex64 } from '@introd/abi';
import type { KernelCode } from '@introd/exceptions';
import type { Driver, DriverList } from './driver-list.js';

/** Kernel code that did something: where it stands, and in which driver. */
export interface Originator extends KernelCode {
  readonly rip: Gva;
  readonly image: Driver | undefined;
}

/** Finds out whose code an address is. */
export function originatorAt(drivers: DriverList, rip: Gva): Originator {
  const image = drivers.find(rip);
  return { rip, image, section: image && drivers.sectionOf(image, rip) };
}

/** The originator as alerts name it. */
export function originatorToAlert(originator: Originator): AlertOriginator {
  return {
    rip: hex64(originator.rip),
    ...(originator.image ? { module: originator.image.toAlert() } : {}),
    ...(originator.section === undefined ? {} : { section: originator.section }),
  };
}

/** The originator as a sentence names it. */
export function originatorText(originator: Originator): string {
  if (!originator.image) return `Code at ${hex64(originator.rip)}, which is in no driver,`;
  const section = originator.section === undefined ? '' : ` (section ${originator.section})`;
  return `${originator.image.name}${section}`;
}
