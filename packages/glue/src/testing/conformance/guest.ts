import { type Cr3, cr3, type Gpa, type Gva, gpa, gva, PAGE_SIZE } from '@introd/abi';
import type { MemoryRegion } from '../../port.js';
import { type ConformanceInstruction, code, le32, le64, store32, storeRax } from './instruction.js';
import * as at from './layout.js';
import { FAR_FUNCTION, LOADED_GDT_LIMIT, PROGRAMS, type ProgramName } from './programs.js';

/** State in which a VCPU enters the guest: flat 64-bit ring 0, RFLAGS 2 (interrupts off), general registers 0. */
export interface ConformanceEntry {
  readonly cr3: Cr3;
  readonly rip: Gva;
  readonly rsp: Gva;
  /** Code segment, present in the guest's GDT. */
  readonly cs: number;
  /** Stack and data segments. */
  readonly ss: number;
  readonly gdt: { readonly base: Gva; readonly limit: number };
  readonly idt: { readonly base: Gva; readonly limit: number };
}

/** A guest for one conformance case: what a backend must load, and where it starts. */
export interface ConformanceGuest {
  readonly memoryRegions: readonly MemoryRegion[];
  /** What RAM holds; the rest is zero. */
  readonly image: readonly { readonly gpa: Gpa; readonly bytes: Uint8Array }[];
  /** One entry for each VCPU that runs, 1 or 2. */
  readonly entries: readonly ConformanceEntry[];
  /** Guest virtual address of a labelled instruction. */
  label(name: string): Gva;
}

const CS = 0x10;
const SS = 0x18;
/** Vectors that push an error code (SDM vol. 3A, table 6-1). */
const WITH_ERROR_CODE = new Set([8, 10, 11, 12, 13, 14, 17, 21]);
const HANDLER_SIZE = 16;
const COMMON_HANDLER = at.HANDLERS + 32 * HANDLER_SIZE;

const P_RW = 0x3n;
const ACCESSED_DIRTY = 0x60n;

function join(parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

function assemble(instructions: readonly ConformanceInstruction[]): Uint8Array {
  return join(instructions.map((instruction) => instruction.bytes));
}

/** A page-table page with the entries given by index. */
function tablePage(entries: readonly (readonly [number, bigint])[]): Uint8Array {
  const words = new BigUint64Array(PAGE_SIZE / 8);
  for (const [index, value] of entries) words[index] = value;
  return new Uint8Array(words.buffer);
}

/** A present, writable, accessed and dirty entry. */
function link(address: number): bigint {
  return BigInt(address) | P_RW | ACCESSED_DIRTY;
}

function pageTables(): { gpa: Gpa; bytes: Uint8Array }[] {
  const root = tablePage([
    [0, link(at.LOW_PDPT)],
    [256, link(at.WINDOW_PDPT)],
  ]);
  const low = Array.from({ length: at.LOW_RAM.size / PAGE_SIZE }, (_, i) => [i, link(i * PAGE_SIZE)] as const);
  const window = Array.from({ length: at.HIGH_RAM.size / PAGE_SIZE }, (_, i) => {
    const address = at.HIGH_RAM.start + i * PAGE_SIZE;
    return [i, address === at.FRESH_DATA ? BigInt(address) | P_RW : link(address)] as const;
  });
  return [
    { gpa: at.PML4, bytes: root },
    { gpa: at.OTHER_PML4, bytes: root },
    { gpa: at.LOW_PDPT, bytes: tablePage([[0, link(at.LOW_PD)]]) },
    { gpa: at.LOW_PD, bytes: tablePage([[0, link(at.LOW_PT)]]) },
    { gpa: at.LOW_PT, bytes: tablePage(low) },
    { gpa: at.WINDOW_PDPT, bytes: tablePage([[0, link(at.WINDOW_PD)]]) },
    { gpa: at.WINDOW_PD, bytes: tablePage([[0, link(at.WINDOW_PT)]]) },
    { gpa: at.WINDOW_PT, bytes: tablePage(window) },
  ];
}

/** Flat code segment at 0x10 and data segment at 0x18 (SDM vol. 3A, 3.4.5). */
function gdt(): Uint8Array {
  return Uint8Array.from([0n, 0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn].flatMap(le64));
}

/** 32 interrupt gates to the handlers (SDM vol. 3A, figure 6-8). */
function idt(): Uint8Array {
  const gates = Array.from({ length: 32 }, (_, vector) => {
    const handler = at.HANDLERS + vector * HANDLER_SIZE;
    const type = 0x8e00; // present, DPL 0, 64-bit interrupt gate
    return [...le32((CS << 16) | (handler & 0xffff)), ...le32((handler & 0xffff_0000) | type), ...le64(0n)];
  });
  return Uint8Array.from(gates.flat());
}

/** Where the guest handles an exception. */
export function exceptionHandler(vector: number): Gva {
  return gva(BigInt(at.HANDLERS + vector * HANDLER_SIZE));
}

function handlers(): Uint8Array {
  const stubs = Array.from({ length: 32 }, (_, vector) => {
    const before = [
      ...(WITH_ERROR_CODE.has(vector) ? [] : [code('push 0', '6a 00')]),
      code(`push ${vector}`, '6a', [vector]),
    ];
    const end = at.HANDLERS + vector * HANDLER_SIZE + before.length * 2 + 5;
    const stub = new Uint8Array(HANDLER_SIZE);
    stub.set(assemble([...before, code('jmp common', 'e9', le32(COMMON_HANDLER - end))]));
    return stub;
  });
  const common = assemble([
    code('pop rax', '58'),
    storeRax(at.Mailbox.VECTOR),
    code('pop rax', '58'),
    storeRax(at.Mailbox.ERROR_CODE),
    code('mov rax, cr2', '0f 20 d0'),
    storeRax(at.Mailbox.CR2),
    code('pop rax', '58'),
    storeRax(at.Mailbox.RIP),
    store32(at.Mailbox.DONE, 1),
    code('jmp $', 'eb fe'),
  ]);
  return join([...stubs, common]);
}

/** Operands in {@link at.TABLE_OPERANDS}: an empty IDT at 0, then a GDTR with a larger limit at 0x10. */
function tableOperands(): Uint8Array {
  const bytes = new Uint8Array(0x20);
  bytes.set([LOADED_GDT_LIMIT, 0x00, ...le64(BigInt(at.GDT))], 0x10);
  return bytes;
}

function entry(start: Gpa, stack: Gpa): ConformanceEntry {
  return {
    cr3: cr3(BigInt(at.PML4)),
    rip: gva(BigInt(start)),
    rsp: gva(BigInt(stack + PAGE_SIZE)),
    cs: CS,
    ss: SS,
    gdt: { base: gva(BigInt(at.GDT)), limit: 4 * 8 - 1 },
    idt: { base: gva(BigInt(at.IDT)), limit: 32 * 16 - 1 },
  };
}

/** The guest that runs a program on VCPU 0, and another on VCPU 1 when one is named. */
export function conformanceGuest(program: ProgramName, second?: ProgramName): ConformanceGuest {
  const labels = new Map<string, Gva>();
  const place = (start: Gpa, instructions: readonly ConformanceInstruction[]) => {
    let address: number = start;
    for (const instruction of instructions) {
      if (instruction.label !== undefined) labels.set(instruction.label, gva(BigInt(address)));
      address += instruction.bytes.length;
    }
    return { gpa: start, bytes: assemble(instructions) };
  };
  const image = [
    ...pageTables(),
    { gpa: at.GDT, bytes: gdt() },
    { gpa: at.IDT, bytes: idt() },
    { gpa: at.HANDLERS, bytes: handlers() },
    { gpa: at.TABLE_OPERANDS, bytes: tableOperands() },
    { gpa: at.Mailbox.VECTOR, bytes: new Uint8Array(8).fill(0xff) },
    place(at.CODE, PROGRAMS[program]),
    place(at.FAR_CODE, FAR_FUNCTION),
  ];
  const entries = [entry(at.CODE, at.STACK)];
  if (second !== undefined) {
    image.push(place(at.SECOND_CODE, PROGRAMS[second]));
    entries.push(entry(at.SECOND_CODE, at.SECOND_STACK));
  }
  return {
    memoryRegions: [at.LOW_RAM, at.HIGH_RAM],
    image: image.map((part) => ({ gpa: gpa(part.gpa), bytes: part.bytes })),
    entries,
    label(name) {
      const address = labels.get(name);
      if (address === undefined) throw new RangeError(`no instruction is labelled ${name}`);
      return address;
    },
  };
}
