import { CAPABILITY_OPERATIONS, CAPABILITY_PROPERTIES } from './capability-members.js';
import type { Capability, PortBase } from './port.js';

/** A call of a port. */
export type PortOperation = (typeof CAPABILITY_OPERATIONS)[Capability][number] | 'close';

/** A port's method with its arguments forgotten. */
export type AnyCall = (...args: unknown[]) => unknown;

/**
 * A port that passes everything on to another one, with each call wrapped. It has exactly the capabilities of the inner one;
 * properties are read from it each time.
 * @param wrap makes the call of the decorated port from the inner one's
 */
export function decoratePort<P extends PortBase>(
  inner: P,
  wrap: (operation: PortOperation, call: AnyCall) => AnyCall,
): P {
  const target = inner as unknown as Record<string, unknown>;
  const port: Record<string, unknown> = {};
  const pass = (name: string) => Object.defineProperty(port, name, { enumerable: true, get: () => target[name] });
  for (const name of ['backend', 'capabilities', 'vcpuCount', 'clockOrigin']) pass(name);
  const wrapCall = (operation: PortOperation) => {
    port[operation] = wrap(operation, (target[operation] as AnyCall).bind(inner));
  };
  wrapCall('close');
  for (const capability of inner.capabilities) {
    for (const name of CAPABILITY_PROPERTIES[capability]) pass(name);
    for (const operation of CAPABILITY_OPERATIONS[capability]) wrapCall(operation);
  }
  return port as unknown as P;
}
