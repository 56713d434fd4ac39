import type { Gpa, VcpuRecord } from '@introd/abi';
import { Assembler } from '@introd/x86/encoder';
import { enterProtectedMode, Machine, type MachineOptions } from '../src/index.js';

/** Places in the protected-mode guest; linear and physical addresses are the same below 2 MiB. */
export const AT = {
  /** Paging structures: 32-bit (directory, table), then PAE (PDPTEs, directory, table). */
  directory32: 0x1000,
  table32: 0x2000,
  pdptes: 0x3000,
  directoryPae: 0x4000,
  tablePae: 0x5000,
  gdt: 0x8000,
  idt: 0x9000,
  tss: 0xa000,
  code: 0x1_0000,
  /** Handlers that the IDT names unless a test says otherwise: vector n powers off with n. */
  stubs: 0x1_4000,
  userCode: 0x1_8000,
  /** Tops of the stacks, each a page. */
  userStack: 0x1_b000,
  stack: 0x2_1000,
  innerStack: 0x2_5000,
  data: 0x3_0000,
} as const;

/** Selectors of the guest's descriptors; those from `spare` on are a test's own. */
export const SELECTOR = {
  code64: 0x10,
  data: 0x18,
  code: 0x20,
  userCode: 0x2b,
  userData: 0x33,
  tss: 0x38,
  spare: 0x50,
} as const;

/** A segment descriptor (SDM vol. 3A, figure 3-8). @param flags the four bits above the limit: G, D/B, L, AVL */
export function descriptor(base: number, limit: number, access: number, flags = 0xc): bigint {
  const low = BigInt((limit & 0xffff) | ((base & 0xffff) << 16)) & 0xffff_ffffn;
  const high = ((base >>> 16) & 0xff) | (access << 8) | (limit & 0xf_0000) | (flags << 20) | (base & 0xff00_0000);
  return low | (BigInt(high >>> 0) << 32n);
}

/** A call, interrupt or trap gate (SDM vol. 3A, figures 5-8 and 6-2). */
export function gate(selector: number, offset: number, access: number, parameters = 0): bigint {
  const low = BigInt((offset & 0xffff) | (selector << 16)) & 0xffff_ffffn;
  return low | (BigInt(((offset & 0xffff_0000) | (access << 8) | parameters) >>> 0) << 32n);
}

/** Table entry of an identity-mapped page: writable, and the user's code and stack for the user. */
function rights(page: number): number {
  return (page << 12) | (page >= 0x18 && page <= 0x1a ? 7 : 3);
}

/** A guest of 32-bit code: flat GDT, a TSS, an IDT, and code that a test writes in assembly text. */
export class ProtectedGuest {
  readonly machine: Machine;
  readonly paging: 'none' | '32-bit' | 'pae';
  labels: ReadonlyMap<string, bigint> = new Map();

  constructor(paging: 'none' | '32-bit' | 'pae' = 'none', options: Partial<MachineOptions> = {}) {
    this.paging = paging;
    this.machine = new Machine({ memory: [{ start: 0 as Gpa, size: 0x20_0000 }], ...options });
    this.write32(AT.directory32, AT.table32 | 7);
    for (let page = 0; page < 512; page++) this.write32(AT.table32 + page * 4, rights(page));
    this.write64(AT.pdptes, BigInt(AT.directoryPae | 1));
    this.write64(AT.directoryPae, BigInt(AT.tablePae | 7));
    for (let page = 0; page < 512; page++) this.write64(AT.tablePae + page * 8, BigInt(rights(page)));
    this.describe(SELECTOR.code64, 0x00af_9b00_0000_ffffn);
    this.describe(SELECTOR.data, descriptor(0, 0xf_ffff, 0x93));
    this.describe(SELECTOR.code, descriptor(0, 0xf_ffff, 0x9b));
    this.describe(SELECTOR.userCode, descriptor(0, 0xf_ffff, 0xfb));
    this.describe(SELECTOR.userData, descriptor(0, 0xf_ffff, 0xf3));
    this.describe(SELECTOR.tss, descriptor(AT.tss, 0x67, 0x8b, 0));
    this.write32(AT.tss + 4, AT.innerStack);
    this.write32(AT.tss + 8, SELECTOR.data);
    this.write32(AT.tss + 0x64, 0x68 << 16);
    const stubs = new Assembler({ bitness: 32 }).section('stubs', BigInt(AT.stubs), { pad: 0x90 });
    for (let vector = 0; vector < 64; vector++) {
      stubs.assemble(`align 16\nmov al, ${vector}\nout 0xf4, al`);
      this.gate(vector, AT.stubs + vector * 16);
    }
    for (const { address, bytes } of stubs.link().sections.values()) this.write(Number(address), bytes);
    this.enter();
  }

  get record(): VcpuRecord {
    return this.machine.vcpu(0);
  }

  /** Puts the VCPU at the start of the code, at ring 0. */
  enter(): void {
    enterProtectedMode(this.record, {
      paging: this.paging,
      cr3: BigInt(this.paging === 'pae' ? AT.pdptes : AT.directory32),
      eip: AT.code,
      esp: AT.stack,
      gdtBase: BigInt(AT.gdt),
      gdtLimit: 0xff,
      idtBase: BigInt(AT.idt),
      idtLimit: 64 * 8 - 1,
    });
    this.record.set32('trSelector', SELECTOR.tss);
    this.record.set('trBase', BigInt(AT.tss));
  }

  /** Puts the VCPU at the start of the user's code, at ring 3. */
  enterUser(): void {
    const { record } = this;
    record.set32('csSelector', SELECTOR.userCode);
    record.set32('csAttributes', 0xc0fb);
    for (const name of ['ss', 'ds', 'es'] as const) {
      record.set32(`${name}Selector`, SELECTOR.userData);
      record.set32(`${name}Attributes`, 0xc0f3);
    }
    record.set('rip', BigInt(AT.userCode));
    record.set('rsp', BigInt(AT.userStack));
  }

  describe(selector: number, value: bigint): void {
    this.write64(AT.gdt + (selector & 0xfff8), value);
  }

  /** Interrupt gate to a handler; `access` holds present, DPL and type. */
  gate(vector: number, handler: number, access = 0x8e, selector: number = SELECTOR.code): void {
    this.write64(AT.idt + vector * 8, gate(selector, handler, access));
  }

  /** Assembles 32-bit code. */
  code(text: string, at: number = AT.code, bitness: 16 | 32 | 64 = 32): this {
    const assembler = new Assembler({ bitness });
    for (const [name, address] of Object.entries(AT)) assembler.define(name, BigInt(address));
    const program = assembler.section('code', BigInt(at)).assemble(text).link();
    for (const { address, bytes } of program.sections.values()) this.write(Number(address), bytes);
    this.labels = new Map([...this.labels, ...program.labels]);
    return this;
  }

  /** Runs kernel code that powers off with 0x77 at its end; returns what it did power off with. */
  outcome(text: string, instructions = 200): number | undefined {
    this.code(`${text}\nmov al, 0x77\nout 0xf4, al`);
    this.machine.run(instructions);
    return this.machine.powerOffCode;
  }

  label(name: string): number {
    const address = this.labels.get(name);
    if (address === undefined) throw new Error(`no label ${name}`);
    return Number(address);
  }

  /** A general register's low half. */
  register(name: 'rax' | 'rbx' | 'rcx' | 'rdx' | 'rsi' | 'rdi' | 'rsp' | 'rbp'): number {
    return Number(BigInt.asUintN(32, this.record.get(name)));
  }

  write(address: number, bytes: Uint8Array): void {
    this.machine.writePhysical(address as Gpa, bytes);
  }

  write32(address: number, value: number): void {
    this.write(address, new Uint8Array(Uint32Array.of(value).buffer));
  }

  write64(address: number, value: bigint): void {
    this.write(address, new Uint8Array(BigUint64Array.of(value).buffer));
  }

  read32(address: number): number {
    const bytes = new Uint8Array(4);
    this.machine.readPhysical(address as Gpa, bytes);
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  /** The doublewords on top of the stack. */
  frame(count: number): number[] {
    return Array.from({ length: count }, (_, i) => this.read32(this.register('rsp') + i * 4));
  }
}
