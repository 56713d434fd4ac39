import {
  Access,
  type Alert,
  assertAlert,
  type Cr3,
  cr3,
  ExitKind,
  type Gpa,
  type Gva,
  gpa,
  gva,
  Reply,
  rootOf,
  type VcpuRecord,
} from '@introd/abi';
import { Engine } from '@introd/core-hooks';
import { baselineRules, ExceptionsEngine } from '@introd/exceptions';
import { createSyntheticPort, type SyntheticPort } from '@introd/glue/testing';
import { type GuestProfile, ProfileStore } from '@introd/windows-profiles';
import { enforcePolicy, type WindowsEvent, WindowsGuest, type WindowsGuestOptions } from '../src/index.js';

const PAGE = 4096;
/** P, RW, A, D of an entry of the kernel. */
const KERNEL_ENTRY = 0x63n;
export const SELF_MAP_INDEX = 0x1ed;
export const KERNEL_BASE = gva(0xfffff803_12000000n);
export const DRIVER_BASE = gva(0xfffff803_20000000n);
const POOL = 0xffffa800_00000000n;
const IDT = gva(0xfffff780_11111000n);
const RAM = 32 * 1024 * 1024;

/** Sections of the kernel image: where the symbols of the 19041 profile fit. */
const SECTIONS = [
  { name: '.text', rva: 0x1000, size: 0x60_0000, flags: 0x6000_0020 },
  { name: 'INIT', rva: 0x70_0000, size: 0x1000, flags: 0x6200_0020 },
  { name: '.data', rva: 0xc0_0000, size: 0xc_0000, flags: 0xc000_0040 },
  { name: 'ALMOSTRO', rva: 0xcf_0000, size: 0x1_0000, flags: 0xc000_0040 },
] as const;
const SIZE_OF_IMAGE = 0x100_0000;

export interface SyntheticProcess {
  readonly pid: number;
  readonly name: string;
  readonly eprocess: Gva;
  readonly cr3: Cr3;
}

/**
 * The structures of a Windows in plain memory behind a port without a processor: enough for discovery, and for any
 * change that a test wants to make to them.
 */
export class SyntheticWindows {
  readonly port: SyntheticPort;
  readonly profile: GuestProfile;
  readonly systemCr3: Cr3;
  readonly processes: SyntheticProcess[] = [];
  #nextPage = 0x1a_0000;
  #nextPool = POOL;
  readonly #view: DataView;

  constructor(readonly options: { readonly kpti?: boolean } = {}) {
    this.port = createSyntheticPort({ memory: [{ start: gpa(0), size: RAM }] });
    this.#view = new DataView(new ArrayBuffer(8));
    this.profile = ProfileStore.bundled().byBuild(19041)!;
    this.systemCr3 = cr3(BigInt(this.#page()));
    this.#selfMap(this.systemCr3);
    this.#buildKernel();
    this.#buildIdt();
    this.#list('PsActiveProcessHead');
    this.#list('PsLoadedModuleList');
    this.addDriver('ntoskrnl.exe', KERNEL_BASE, SIZE_OF_IMAGE);
    this.#buildDriver();
    this.addProcess(4, 'System', this.systemCr3);
    this.writeSymbol('PsInitialSystemProcess', this.processes[0]!.eprocess);
    this.#buildRegisters();
  }

  get vcpu(): VcpuRecord {
    return this.port.vcpu(0);
  }

  // --- memory ---

  #page(): number {
    const page = this.#nextPage;
    this.#nextPage += PAGE;
    if (this.#nextPage > RAM) throw new Error('the synthetic machine is out of memory');
    return page;
  }

  read64(address: number): bigint {
    const bytes = new Uint8Array(8);
    if (!this.port.readPhysical(gpa(address), bytes)) throw new Error(`no memory at ${address}`);
    return new DataView(bytes.buffer).getBigUint64(0, true);
  }

  write64(address: number, value: bigint): void {
    this.#view.setBigUint64(0, BigInt.asUintN(64, value), true);
    this.port.writePhysical(gpa(address), new Uint8Array(this.#view.buffer.slice(0)));
  }

  /** Maps fresh pages of the kernel's half, unless they are mapped already; returns where the first lies. */
  map(va: bigint, size = PAGE): number {
    const first = this.physical(va, true);
    for (let at = PAGE; at < size; at += PAGE) this.physical(va + BigInt(at), true);
    return first;
  }

  physical(va: bigint, create = false): number {
    let table = rootOf(this.systemCr3) as number;
    for (const shift of [39n, 30n, 21n, 12n]) {
      const at = table + Number((va >> shift) & 0x1ffn) * 8;
      let entry = this.read64(at);
      if ((entry & 1n) === 0n) {
        if (!create) throw new Error(`not mapped: ${va.toString(16)}`);
        entry = BigInt(this.#page()) | KERNEL_ENTRY;
        this.write64(at, entry);
        if (shift === 39n) {
          const slot = at - rootOf(this.systemCr3);
          for (const process of this.processes) this.write64(rootOf(process.cr3) + slot, entry);
        }
      }
      table = Number(entry & 0xf_ffff_ffff_f000n);
    }
    return table + Number(va & 0xfffn);
  }

  /** Writes kernel memory, mapping it where it is not. */
  write(va: bigint, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += 1) {
      this.map((va + BigInt(at)) & ~0xfffn);
      this.port.writePhysical(this.physical(va + BigInt(at)) as Gpa, bytes.subarray(at, at + 1));
    }
  }

  writeU64(va: bigint, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
    this.write(va, bytes);
  }

  readU64(va: bigint): bigint {
    return this.read64(this.physical(va));
  }

  unmap(va: bigint): void {
    this.alias(va, undefined);
  }

  /** Makes a mapped address show another physical page, or none. */
  alias(va: bigint, page: number | undefined): void {
    let table = rootOf(this.systemCr3) as number;
    for (const shift of [39n, 30n, 21n]) {
      table = Number(this.read64(table + Number((va >> shift) & 0x1ffn) * 8) & 0xf_ffff_ffff_f000n);
    }
    this.write64(table + Number((va >> 12n) & 0x1ffn) * 8, page === undefined ? 0n : BigInt(page) | KERNEL_ENTRY);
  }

  symbol(name: string): Gva {
    return gva(KERNEL_BASE + BigInt(this.profile.symbol(name)));
  }

  writeSymbol(name: string, value: bigint): void {
    this.writeU64(this.symbol(name), value);
  }

  // --- what lies in it ---

  #selfMap(root: Cr3): void {
    this.write64(this.entry(root), BigInt(rootOf(root)) | KERNEL_ENTRY);
  }

  /** Physical address of the self-map entry of an address space. */
  entry(root: Cr3): number {
    return rootOf(root) + SELF_MAP_INDEX * 8;
  }

  #buildKernel(): void {
    const page = peHeaders(SIZE_OF_IMAGE, SECTIONS, 0x2000);
    this.write(KERNEL_BASE, page);
    this.map(KERNEL_BASE + 0xc0_0000n, 0xc_0000);
    this.map(KERNEL_BASE + 0xcf_0000n, 0x1_0000);
    this.map(KERNEL_BASE + 0x70_0000n);
    this.write(KERNEL_BASE + 0x2000n, debugDirectory(this.profile));
    this.write(this.symbol('KiSystemCall64'), this.options.kpti ? SYSCALL_WITH_KPTI : SYSCALL);
    this.map(this.symbol('KiSystemCall64') + 0x1000n);
    this.writeSymbol('PsNtosImageBase', KERNEL_BASE);
    this.write(this.symbol('NtBuildNumber'), Uint8Array.of(0x61, 0x4a, 0x00, 0xf0));
  }

  #buildDriver(): void {
    this.write(DRIVER_BASE, peHeaders(0x3000, [{ name: '.text', rva: 0x1000, size: 0x1000, flags: 0x6000_0020 }], 0));
    this.map(DRIVER_BASE + 0x1000n);
    this.addDriver('Evil.sys', DRIVER_BASE, 0x3000);
  }

  #buildIdt(): void {
    this.map(IDT);
    for (const vector of [0, 14]) {
      const handler = KERNEL_BASE + 0x40_0000n + BigInt(vector * 16);
      this.writeU64(
        IDT + BigInt(vector * 16),
        (handler & 0xffffn) | ((handler & 0xffff_0000n) << 32n) | 0x8e00_0010_0000n,
      );
      this.writeU64(IDT + BigInt(vector * 16 + 8), handler >> 32n);
    }
  }

  #buildRegisters(): void {
    const { vcpu } = this;
    vcpu.set('cr0', 0x8001_0033n);
    vcpu.set('cr3', this.systemCr3);
    vcpu.set('cr4', 0x6f8n);
    vcpu.set('efer', 0xd01n);
    vcpu.set('lstar', this.symbol('KiSystemCall64'));
    vcpu.set('idtBase', IDT);
    vcpu.set32('idtLimit', 0xfff);
    // 64-bit code of ring 0: L and P of CS, P of SS.
    vcpu.set32('csAttributes', 0xa09b);
    vcpu.set32('ssAttributes', 0xc093);
    vcpu.set32('csSelector', 0x10);
    vcpu.set('rflags', 2n);
  }

  #list(symbol: string): void {
    const head = this.symbol(symbol);
    this.writeU64(head, head);
    this.writeU64(head + 8n, head);
  }

  #append(symbol: string, entry: bigint): void {
    const head = this.symbol(symbol);
    const last = this.readU64(head + 8n);
    this.writeU64(entry, head);
    this.writeU64(entry + 8n, last);
    this.writeU64(last, entry);
    this.writeU64(head + 8n, entry);
  }

  #unlink(entry: bigint): void {
    const next = this.readU64(entry);
    const previous = this.readU64(entry + 8n);
    this.writeU64(previous, next);
    this.writeU64(next + 8n, previous);
  }

  pool(size: number): Gva {
    const va = gva(this.#nextPool);
    this.map(va, size);
    this.#nextPool += BigInt(Math.ceil(size / PAGE) * PAGE);
    return va;
  }

  field(process: { eprocess: Gva }, name: string): Gva {
    return gva(process.eprocess + BigInt(this.profile.struct('_EPROCESS').offset(name)));
  }

  link(process: { eprocess: Gva }): Gva {
    return this.field(process, 'ActiveProcessLinks');
  }

  setFlag(process: { eprocess: Gva }, name: string, value: boolean): void {
    const { offset, bit } = this.profile.struct('_EPROCESS').field(name);
    const at = process.eprocess + BigInt(offset & ~7);
    const mask = 1n << BigInt((offset & 7) * 8 + bit!);
    const old = this.readU64(at);
    this.writeU64(at, value ? old | mask : old & ~mask);
  }

  addProcess(pid: number, name: string, root?: Cr3, userRoot?: bigint): SyntheticProcess {
    let tables = root;
    if (tables === undefined) {
      tables = cr3(BigInt(this.#page()));
      for (let slot = 256; slot < 512; slot += 1) {
        this.write64(rootOf(tables) + slot * 8, this.read64(rootOf(this.systemCr3) + slot * 8));
      }
      this.#selfMap(tables);
    }
    const eprocess = this.pool(this.profile.struct('_EPROCESS').size);
    const process = { pid, name, eprocess, cr3: tables };
    this.writeU64(this.field(process, 'UniqueProcessId'), BigInt(pid));
    this.writeU64(this.field(process, 'Pcb.DirectoryTableBase'), tables);
    if (userRoot !== undefined) this.writeU64(this.field(process, 'Pcb.UserDirectoryTableBase'), userRoot);
    this.writeU64(this.field(process, 'CreateTime'), BigInt(pid) * 10_000_000n);
    this.write(this.field(process, 'ImageFileName'), new TextEncoder().encode(name));
    this.setFlag(process, 'HasAddressSpace', true);
    this.#append('PsActiveProcessHead', this.link(process));
    this.processes.push(process);
    return process;
  }

  /** Makes page tables of the user half for KPTI, with a self-map entry of their own. */
  userTables(): Cr3 {
    const tables = cr3(BigInt(this.#page()));
    this.#selfMap(tables);
    return tables;
  }

  removeProcess(process: SyntheticProcess): void {
    this.#unlink(this.link(process));
    this.processes.splice(this.processes.indexOf(process), 1);
  }

  addDriver(name: string, base: Gva, size: number): void {
    const struct = this.profile.struct('_KLDR_DATA_TABLE_ENTRY');
    const entry = this.pool(PAGE);
    const text = entry + 0x800n;
    this.write(text, new Uint8Array(Uint16Array.from(name, (c) => c.charCodeAt(0)).buffer));
    this.writeU64(entry + BigInt(struct.offset('DllBase')), base);
    this.writeU64(entry + BigInt(struct.offset('SizeOfImage')), BigInt(size));
    this.writeU64(entry + BigInt(struct.offset('BaseDllName.Length')), BigInt(name.length * 2));
    this.writeU64(entry + BigInt(struct.offset('BaseDllName.Buffer')), text);
    this.#append('PsLoadedModuleList', entry + BigInt(struct.offset('InLoadOrderLinks')));
  }
}

/** mov [rsp+0x10], rsp-like beginnings of a handler: nop, then a switch of page tables or not. */
const SYSCALL = Uint8Array.of(0x0f, 0x01, 0xf8, 0x90, 0xc3);
const SYSCALL_WITH_KPTI = Uint8Array.of(0x0f, 0x01, 0xf8, 0x0f, 0x22, 0xdc, 0xc3);

/** One page of headers of a 64-bit image. */
export function peHeaders(
  sizeOfImage: number,
  sections: readonly { name: string; rva: number; size: number; flags: number }[],
  debugRva: number,
): Uint8Array {
  const page = new Uint8Array(PAGE);
  const view = new DataView(page.buffer);
  const nt = 0x80;
  view.setUint16(0, 0x5a4d, true);
  view.setUint32(0x3c, nt, true);
  view.setUint32(nt, 0x4550, true);
  view.setUint16(nt + 4, 0x8664, true);
  view.setUint16(nt + 6, sections.length, true);
  view.setUint32(nt + 8, 0x1234_5678, true);
  view.setUint16(nt + 20, 240, true);
  const optional = nt + 24;
  view.setUint16(optional, 0x20b, true);
  view.setUint32(optional + 16, 0x1000, true);
  view.setUint32(optional + 32, PAGE, true);
  view.setUint32(optional + 36, 512, true);
  view.setUint32(optional + 56, sizeOfImage, true);
  view.setUint32(optional + 108, 16, true);
  if (debugRva !== 0) {
    view.setUint32(optional + 112 + 6 * 8, debugRva, true);
    view.setUint32(optional + 112 + 6 * 8 + 4, 28, true);
  }
  for (const [index, section] of sections.entries()) {
    const at = optional + 240 + index * 40;
    page.set(new TextEncoder().encode(section.name), at);
    view.setUint32(at + 8, section.size, true);
    view.setUint32(at + 12, section.rva, true);
    view.setUint32(at + 16, section.size, true);
    view.setUint32(at + 36, section.flags, true);
  }
  return page;
}

/** A debug directory at 0x2000 of the image with the symbol file of a profile. */
function debugDirectory(profile: GuestProfile): Uint8Array {
  const bytes = new Uint8Array(0x100);
  const view = new DataView(bytes.buffer);
  view.setUint32(12, 2, true);
  view.setUint32(16, 24 + 13, true);
  view.setUint32(20, 0x2040, true);
  const { guid, age, name } = profile.pdb;
  const at = 0x40;
  bytes.set(new TextEncoder().encode('RSDS'), at);
  view.setUint32(at + 4, Number.parseInt(guid.slice(0, 8), 16), true);
  view.setUint16(at + 8, Number.parseInt(guid.slice(8, 12), 16), true);
  view.setUint16(at + 10, Number.parseInt(guid.slice(12, 16), 16), true);
  for (let i = 0; i < 8; i += 1) bytes[at + 12 + i] = Number.parseInt(guid.slice(16 + i * 2, 18 + i * 2), 16);
  view.setUint32(at + 20, age, true);
  bytes.set(new TextEncoder().encode(name), at + 24);
  return bytes;
}

/** A synthetic Windows with an engine and the package under test on it. */
export class Attached {
  readonly engine: Engine;
  readonly guest: WindowsGuest;
  readonly alerts: Alert[] = [];
  readonly events: WindowsEvent[] = [];
  readonly engineProblems: string[] = [];

  constructor(
    readonly windows: SyntheticWindows,
    options: Partial<WindowsGuestOptions> = {},
  ) {
    this.engine = new Engine(windows.port);
    this.engine.onProblem((problem) => this.engineProblems.push(`${problem.message}: ${String(problem.cause)}`));
    this.guest = new WindowsGuest(this.engine, {
      profiles: ProfileStore.bundled(),
      exceptions: ExceptionsEngine.fromJson(baselineRules),
      policy: enforcePolicy,
      onAlert: (alert) => this.alerts.push(assertAlert(JSON.parse(JSON.stringify(alert)))),
      onEvent: (event) => this.events.push(event),
      ...options,
    });
  }

  /** The guest loads CR3. */
  loadCr3(value: bigint = this.windows.systemCr3 + 0x1000n): void {
    const { port, vcpu } = this.windows;
    port.raiseRegisterWrite(0, ExitKind.CR_WRITE, 3, vcpu.cr3, value);
    this.engine.step(1);
  }

  tick(): void {
    this.windows.port.time += 1_000_000;
    this.windows.port.raiseTick();
    this.engine.step(1);
  }

  get problems(): string[] {
    return this.events.flatMap((event) => (event.type === 'problem' ? [event.message] : []));
  }

  /**
   * Kernel code runs one instruction that writes a page-table entry, as a processor would: it exits until the engine has
   * made up its mind, then does what the reply says.
   * @param code the instruction; it addresses the entry by RAX and takes its value from RCX
   */
  execute(code: readonly number[], entry: number, rcx: bigint, rip: bigint = DRIVER_BASE + 0x1100n): Reply {
    const { windows, engine } = this;
    const { vcpu, port } = windows;
    windows.write(rip, Uint8Array.from(code));
    const address = 0xffff_f600_0000_0000n + BigInt(entry % PAGE);
    vcpu.set('rip', rip);
    vcpu.set('rax', address);
    vcpu.set('rcx', rcx);
    for (let exits = 0; exits < 8; exits += 1) {
      port.raiseViolation(0, { gpa: gpa(entry), gla: gva(address), access: Access.WRITE, size: 8 });
      engine.step(1);
      const reply = port.lastReply(0);
      if (reply !== Reply.RETRY || vcpu.rip !== rip) return reply!;
    }
    throw new Error('the engine retries for ever');
  }
}
