import type { Gpa } from '@introd/abi';
import { enterLongMode, Machine } from '@introd/hv-sim';
import { Assembler } from '@introd/x86/encoder';
import { CODE, DATA, kernel, leafEntry, PML4, STACK } from '../guest-layout.js';
import { prepare, put64 } from '../sim-guest.js';

/** Physical addresses of what the guest uses, on pages of their own. */
export const AT = {
  /** Last-level table of the large page, for its split. */
  splitTable: 0x6000,
  /** Entry of the directory that maps the second 2 MiB as one page. */
  largeEntry: 0x3008,
  /** The functions that are detoured, and the slack space behind them. */
  functions: 0x1_8000,
  /** Code of the second VCPU. */
  secondCode: 0x1_4000,
  /** A page under a virtual-address hook, and the frame that it moves to. */
  virtual: 0x4_0000,
  virtualSpare: 0x4_1000,
  /** Two pages with hidden bytes across their border, and a frame that the first of them moves to. */
  hidden: 0x4_2fe0,
  hiddenSpare: 0x4_4000,
  /** Two pages with a hooked region across their border. */
  region: 0x4_5800,
  /** Memory that is compared at each tick. */
  watched: 0x4_8000,
  interruptTable: 0x5_0000,
  descriptors: 0x5_1000,
  /** Operands of LIDT: one that the hook denies, one that it allows. */
  tableOperands: 0x5_2000,
  stringSource: 0x5_3000,
  stringTarget: 0x5_4000,
  /** The last bytes before a page that is not mapped until the guest's page-fault handler maps it. */
  border: 0x5_5ff8,
  absent: 0x5_6000,
  /** A page that the second VCPU maps elsewhere and back. */
  swapped: 0x5_8000,
  swappedSpare: 0x5_9000,
  results: 0x6_0000,
  /** Inside the large page. */
  large: 0x20_5000,
  /** Where the split maps it. */
  largeSpare: 0x20_6000,
} as const;

/** Bytes that are hidden at {@link AT}.hidden. */
export const HIDDEN_LENGTH = 64;
/** Values that the guest must not write. */
export const EVIL = 0x6666;
export const GOOD = 0x1111;
/** What the guest sees at DATA + 0x40. */
export const SHOWN = 0x1234_5678;
/** What {@link AT}.watched should hold, and what the guest writes there. */
const KEPT = 0x4b45_5054n;
/** Bytes of the section with the functions; slack follows on its page. */
export const TEXT_SIZE = 0xe00;
/** Rounds of the second VCPU. */
const ROUNDS = 4;
const LSTAR = 0xc000_0082;
/** Registers of the local APIC as MSRs (SDM vol. 3A, 11.12.1.2), and the mode bit of its timer. */
const APIC = { endOfInterrupt: 0x80b, spurious: 0x80f, timer: 0x832, initialCount: 0x838, periodic: 0x2_0000 };
const PAGE_FAULT = 14;
const TIMER_VECTOR = 0x25;
const CR4_TSD = 4;
const CR4_OSXSAVE = 0x4_0000;

const va = (physical: number): string => `0x${kernel(physical).toString(16)}`;
const store = (physical: number, value: number | bigint): string =>
  `mov rbx, ${va(physical)}\nmov rax, ${value}\nmov [rbx], rax`;
/** Stores what is at an address among the results. */
let results = 0;
const result = (register: string): string => `mov rdi, ${va(AT.results + 8 * results++)}\nmov [rdi], ${register}`;
const load = (physical: number): string => `mov rsi, ${va(physical)}\nmov rax, [rsi]\n${result('rax')}`;
const remap = (page: number, entry: number | bigint, at: number = leafEntry(page)): string =>
  `${store(at, entry)}\nmov rbx, ${va(page)}\ninvlpg [rbx]`;
const phase = (number: number): string => `mov rax, ${number}\nvmcall`;
const wrmsr = (msr: number, value: number): string => `mov ecx, ${msr}\nmov eax, ${value}\nxor edx, edx\nwrmsr`;
const lidt = (operand: number): string => `mov rbx, ${va(AT.tableOperands + operand)}\nlidt [rbx]`;
const call = (name: string): string => `mov rcx, 30\nmov rdx, 12\nmov rax, ${name}\ncall rax\n${result('rax')}`;

const PROGRAM = `
  ; physical pages: a value that is denied, one that is not, a read that is shown other bytes
  ${store(DATA, EVIL)}
  ${store(DATA, GOOD)}
  ${load(DATA + 0x40)}
  ${store(DATA + 8, 1)}
  ${store(DATA + 8, 2)}
  ; a vector register over a hooked word
  mov rbx, ${va(DATA + 0x10)}
  pcmpeqd xmm0, xmm0
  movups [rbx], xmm0
  movq [rbx + 0x20], xmm0
  ; execution of a hooked page
  mov rax, hooked
  call rax
  ; page-table entries: a bit that is taken out, one that is not watched
  ${store(leafEntry(AT.swappedSpare), AT.swappedSpare | 7)}
  ${store(leafEntry(AT.swappedSpare), AT.swappedSpare | 0x203)}
  ; a page under a virtual hook moves, is written to, goes away and comes back with other contents
  ${remap(AT.virtual, AT.virtualSpare | 3)}
  ${store(AT.virtual + 0x10, EVIL)}
  ${store(AT.virtual + 0x10, GOOD)}
  ${remap(AT.virtual, 0)}
  ${remap(AT.virtual, AT.virtual | 3)}
  ${store(AT.virtual + 0x10, EVIL)}
  ; a large page is split, and its entry put back
  ${store(AT.large, EVIL)}
  ${remap(AT.large, AT.splitTable | 3, AT.largeEntry)}
  ${store(AT.large, EVIL)}
  ${store(AT.large, GOOD)}
  ${remap(AT.large, 0x20_0083, AT.largeEntry)}
  ${store(AT.large, EVIL)}
  ; a region over two pages
  ${store(AT.region + 0x7fc, EVIL)}
  ${store(AT.region + 0x800, GOOD)}
  ${phase(1)}
  ; hidden bytes: read, written to, swapped out and in
  ${load(AT.hidden)}
  ${load(AT.hidden + 0x1c)}
  ${store(AT.hidden, EVIL)}
  ${remap(AT.hidden, 0)}
  ${remap(AT.hidden, AT.hiddenSpare | 3)}
  ${load(AT.hidden)}
  ${phase(2)}
  ; detours by INT3 and by VMCALL
  ${call('sum')}
  ${call('difference')}
  mov rbx, sum
  mov rax, [rbx]
  ${result('rax')}
  mov dword [rbx], ${EVIL}
  ${call('sum')}
  ${phase(3)}
  ${call('sum')}
  ${call('difference')}
  ; registers
  ${wrmsr(LSTAR, EVIL)}
  ${wrmsr(LSTAR, GOOD)}
  mov rax, cr4
  or rax, ${CR4_OSXSAVE}
  mov cr4, rax
  or rax, ${CR4_TSD}
  mov cr4, rax
  mov rax, cr4
  ${result('rax')}
  mov rax, cr3
  mov cr3, rax
  xor ecx, ecx
  xor edx, edx
  mov eax, 3
  xsetbv
  ${lidt(0)}
  ${lidt(16)}
  mov rbx, ${va(AT.results + 0x800)}
  sidt [rbx]
breakpoint:
  int3
  ; a repeated string instruction that runs into a hook
  mov rsi, ${va(AT.stringSource)}
  mov rdi, ${va(AT.stringTarget + 0x7fc)}
  mov ecx, 20
  rep movsb
  ; a store over the end of its page: the fault's handler maps the next one
  ${store(AT.border + 4, 0x1122_3344_5566_7788n)}
  ${phase(4)}
  ; memory whose changes are undone at a tick
  mov rax, ${KEPT}
  mov rbx, ${va(AT.watched)}
  mov qword [rbx], ${EVIL}
  ; the time until then is spent halted, between interrupts of the timer
  ${wrmsr(APIC.spurious, 0x1ff)}
  ${wrmsr(APIC.timer, APIC.periodic | TIMER_VECTOR)}
  ${wrmsr(APIC.initialCount, 300_000)}
  mov rdx, ${KEPT}
waiting:
  sti
  hlt
  cli
  cmp [rbx], rdx
  jne waiting
  ${wrmsr(APIC.initialCount, 0)}
  ${phase(5)}
  ${call('sum')}
  ${store(AT.results + 0x900, GOOD)}
  hlt
hooked:
  mov r8, 7
  ret
fault:
  ; maps the page that was absent
  push rbx
  push rax
  ${remap(AT.absent, AT.absent | 3)}
  pop rax
  pop rbx
  add rsp, 8
  iretq
timer:
  push rdx
  ${wrmsr(APIC.endOfInterrupt, 0)}
  pop rdx
  iretq
`;

const SECOND_PROGRAM = `
  mov r15, ${ROUNDS}
again:
  ${store(DATA + 0x80, GOOD)}
  ${remap(AT.swapped, AT.swappedSpare | 3)}
  ${store(AT.swapped, GOOD)}
  ${remap(AT.swapped, AT.swapped | 3)}
  ${store(leafEntry(CODE), CODE | 0x203)}
  ${store(leafEntry(CODE), CODE | 3)}
  dec r15
  jne again
  hlt
`;

/** mov [rsp+8], rbx; lea rax, [rcx+rdx]; ret, and the same with a SUB. */
const FUNCTIONS = `
sum:
  mov [rsp+8], rbx
  lea rax, [rcx+rdx]
  ret
  align 64
difference:
  mov [rsp+8], rbx
  mov rax, rcx
  sub rax, rdx
  ret
`;

interface Program {
  readonly bytes: ReadonlyMap<number, Uint8Array>;
  readonly labels: ReadonlyMap<string, bigint>;
}

const PROGRAMS: Program = (() => {
  results = 0;
  const linked = new Assembler()
    .section('main', kernel(CODE))
    .assemble(PROGRAM)
    .section('second', kernel(AT.secondCode))
    .assemble(SECOND_PROGRAM)
    .section('functions', kernel(AT.functions))
    .assemble(FUNCTIONS)
    .link();
  const bytes = new Map<number, Uint8Array>();
  for (const [name, physical] of [
    ['main', CODE],
    ['second', AT.secondCode],
    ['functions', AT.functions],
  ] as const) {
    bytes.set(physical, linked.sections.get(name)!.bytes);
  }
  return { bytes, labels: linked.labels };
})();

/** Address of a label of the guest's code. */
export function label(name: string): bigint {
  return PROGRAMS.labels.get(name)!;
}

/** The machine: two VCPUs that get in between each other and into the engine's calls. */
export function faultMachine(): Machine {
  return new Machine({
    vcpus: 2,
    quantum: 7,
    seed: 3,
    race: { betweenFaultAndDelivery: 2, insideCalls: 1, betweenReplyAndRetry: 2 },
    memory: [{ start: 0 as Gpa, size: 4 * 1024 * 1024 }],
  });
}

/** Contents of the hidden bytes as the guest knows them. */
export const HIDDEN_ORIGINAL = Uint8Array.from({ length: HIDDEN_LENGTH }, (_, at) => at * 3 + 1);

/** Resets the machine and puts the guest into it; no VCPU runs yet. */
export function prepareFaultGuest(machine: Machine): void {
  machine.reset();
  prepare(machine);
  machine.setActive(0, false);
  for (const [physical, bytes] of PROGRAMS.bytes) {
    machine.writePhysical(physical as Gpa, bytes);
  }
  // Pages of the kernel, not for user code.
  for (const page of [CODE, AT.functions, STACK - 0x1000, STACK, DATA, 0x4_2000, AT.watched]) {
    put64(machine, leafEntry(page), BigInt(page) | 3n);
  }
  put64(machine, leafEntry(AT.absent), 0n);
  put64(machine, AT.largeEntry, 0x20_0083n);
  for (let page = 0; page < 512; page++) {
    put64(machine, AT.splitTable + page * 8, BigInt(0x20_0000 + page * 0x1000) | 3n);
  }
  put64(machine, AT.splitTable + (AT.large & 0x1f_f000) / 512, BigInt(AT.largeSpare) | 3n);
  machine.writePhysical(AT.hidden as Gpa, HIDDEN_ORIGINAL);
  machine.writePhysical((AT.hiddenSpare + (AT.hidden & 0xfff)) as Gpa, HIDDEN_ORIGINAL.subarray(0, 32));
  machine.writePhysical(AT.stringSource as Gpa, new Uint8Array(64).fill(0x77));
  put64(machine, AT.watched, KEPT);
  put64(machine, DATA + 0x40, 0x5ec7n);
  const tables = new DataView(new ArrayBuffer(64));
  for (const [vector, name] of [
    [PAGE_FAULT, 'fault'],
    [TIMER_VECTOR, 'timer'],
  ] as const) {
    const gate = label(name);
    tables.setUint16(0, Number(gate & 0xffffn), true);
    tables.setUint16(2, 0x10, true);
    tables.setUint16(4, 0x8e00, true);
    tables.setUint16(6, Number((gate >> 16n) & 0xffffn), true);
    tables.setUint32(8, Number(gate >> 32n), true);
    machine.writePhysical((AT.interruptTable + vector * 16) as Gpa, new Uint8Array(tables.buffer, 0, 16));
  }
  tables.setBigUint64(0x10, 0x00af_9b00_0000_ffffn, true);
  tables.setBigUint64(0x18, 0x00cf_9300_0000_ffffn, true);
  machine.writePhysical((AT.descriptors + 0x10) as Gpa, new Uint8Array(tables.buffer, 0x10, 16));
  for (const [at, limit] of [
    [0, 0xfff],
    [16, 0x7ff],
  ] as const) {
    tables.setUint16(32, limit, true);
    tables.setBigUint64(34, kernel(AT.interruptTable), true);
    machine.writePhysical((AT.tableOperands + at) as Gpa, new Uint8Array(tables.buffer, 32, 10));
  }
  const second = machine.vcpu(1);
  enterLongMode(second, { cr3: BigInt(PML4), rip: kernel(AT.secondCode), rsp: kernel(STACK + 0x2000) });
  for (const index of [0, 1]) {
    const vcpu = machine.vcpu(index);
    vcpu.set('idtBase', kernel(AT.interruptTable));
    vcpu.set32('idtLimit', 0x3ff);
    vcpu.set('gdtBase', kernel(AT.descriptors));
    vcpu.set32('gdtLimit', 31);
  }
}

/** Parts of memory that the guest leaves as it should whatever failed; entries of tables without their accessed and dirty bits. */
const OUTCOME: readonly (readonly [first: number, length: number])[] = [
  [CODE, 0x2000],
  [AT.secondCode, 0x1000],
  [AT.functions, 0x1000],
  [DATA, 0x1000],
  [AT.virtual, 0x8000],
  [AT.watched, 0x1000],
  [AT.stringSource, 0x4000],
  [AT.swapped, 0x2000],
  [AT.results, 0x1000],
  [AT.large, 0x2000],
];
const TABLES: readonly (readonly [first: number, length: number])[] = [
  [PML4, 0x4000],
  [AT.splitTable, 0x1000],
];
const ACCESSED_DIRTY = 0x60;

/** What the guest left in memory. */
export function memoryOf(machine: Machine): Buffer {
  const parts: Uint8Array[] = [];
  for (const [first, length] of OUTCOME) {
    const bytes = new Uint8Array(length);
    machine.readPhysical(first as Gpa, bytes);
    parts.push(bytes);
  }
  for (const [first, length] of TABLES) {
    const bytes = new Uint8Array(length);
    machine.readPhysical(first as Gpa, bytes);
    for (let at = 0; at < length; at += 8) {
      bytes[at] = bytes[at]! & ~ACCESSED_DIRTY;
    }
    parts.push(bytes);
  }
  return Buffer.concat(parts);
}
