import { type Cr3, type Gpa, PAGE_SIZE } from '@introd/abi';
import type { Machine } from '@introd/hv-sim';
import type { Detour, DetourDescriptor, DetourHandler, EngineOptions } from '../src/index.js';
import { type CodeImageData, createCodeImages } from '../src/testing.js';
import { CODE, kernel, leafEntry, PML4, STACK } from './guest-layout.js';
import { code, microMachine, prepare, put64, SimGuest } from './sim-guest.js';

export const CR3 = BigInt(PML4) as Cr3;
/** The function to be detoured, in the middle of the image's first page. */
export const FUNCTION = CODE + 0x400;
/** Bytes of the code section; what follows on its page is slack. */
export const TEXT_SIZE = 0xe00;
export const SLACK = CODE + TEXT_SIZE;

/** Handler that only calls the engine: INT3 and two NOPs. */
export const PLAIN: DetourHandler = { code: code('cc 90 90'), hypercall: { kind: 'int3', offset: 0 } };
/** The same by VMCALL. */
export const BY_VMCALL: DetourHandler = { code: code('0f 01 c1'), hypercall: { kind: 'vmcall', offset: 0 } };

/** mov rcx, 30; mov rdx, 12; call the function; hlt */
export const CALLER = `48c7c11e000000 48c7c20c000000 ${callTo(CODE + 14, FUNCTION)} f4`;
/** mov [rsp+8], rbx (5 bytes); lea rax, [rcx+rdx]; ret */
export const SUM = '48895c2408 488d0411 c3';

export function callTo(from: number, to: number): string {
  const bytes = Buffer.alloc(5);
  bytes[0] = 0xe8;
  bytes.writeInt32LE(to - from - 5, 1);
  return bytes.toString('hex');
}

/** A kernel image of two pages of code whose function `Sum` can be detoured, and a caller at its start. */
export class DetourGuest extends SimGuest {
  constructor(
    options: {
      readonly caller?: string;
      readonly function?: string;
      readonly image?: Partial<CodeImageData>;
      readonly build?: number;
      readonly machine?: Machine;
      readonly engine?: EngineOptions;
    } = {},
  ) {
    const machine = options.machine ?? microMachine();
    prepare(machine);
    for (const page of [CODE, CODE + PAGE_SIZE, STACK - PAGE_SIZE, STACK, STACK + PAGE_SIZE]) {
      put64(machine, leafEntry(page), BigInt(page) | 3n);
    }
    machine.writePhysical(CODE as Gpa, code(options.caller ?? CALLER));
    machine.writePhysical(FUNCTION as Gpa, code(options.function ?? SUM));
    super(machine, options.engine);
    this.engine.addressSpaces = { systemCr3: CR3, isKnown: () => true };
    this.engine.codeImages = createCodeImages(this.engine.memory, CR3, {
      build: options.build ?? 19041,
      images: [
        {
          name: 'ntoskrnl.exe',
          base: kernel(CODE),
          size: 2 * PAGE_SIZE,
          sections: [{ name: '.text', start: kernel(CODE), size: TEXT_SIZE }],
          exports: { Sum: kernel(FUNCTION) },
          symbols: { SumSymbol: kernel(FUNCTION) },
          ...options.image,
        },
      ],
    });
  }

  /** Sets a detour of the function; it must succeed. */
  detour(more: Partial<DetourDescriptor> = {}): Detour {
    const result = this.engine.detours.set(descriptor(more));
    if (result.status !== 'set') throw new Error(JSON.stringify(result, (_, value) => String(value)));
    return result.detour;
  }

  /** The bytes of both code pages as they are. */
  get codePages(): Uint8Array {
    return this.physical(CODE, 2 * PAGE_SIZE);
  }

  physical(gpa: number, count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    this.machine.readPhysical(gpa as Gpa, bytes);
    return bytes;
  }

  /** What the guest sees. */
  seen(gpa: number, count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    this.engine.cloaks.readAsGuest(CR3, kernel(gpa), bytes);
    return bytes;
  }

  get rax(): bigint {
    return this.vcpu.get('rax');
  }
}

export function descriptor(more: Partial<DetourDescriptor> = {}): DetourDescriptor {
  return { name: 'Sum', function: { by: 'export', name: 'Sum' }, handlers: [PLAIN], ...more };
}
