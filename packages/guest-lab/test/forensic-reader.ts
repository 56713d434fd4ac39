/**
 * A small memory-forensics tool, as an outsider would write it: it knows Windows and has the symbol file (raw ISF JSON),
 * and it uses nothing of the code under test. It starts from physical memory alone.
 */

interface IsfType {
  kind: string;
  name?: string;
  count?: number;
  subtype?: IsfType;
  bit_position?: number;
  bit_length?: number;
}
export interface Isf {
  metadata: { windows: { pdb: { GUID: string; age: number; database: string } } };
  symbols: Record<string, { address: number }>;
  user_types: Record<string, { size: number; fields: Record<string, { offset: number; type: IsfType }> }>;
}

/** Physical memory: reads bytes, zero where there is no RAM. */
export interface PhysicalMemory {
  readonly end: number;
  read(address: number, size: number): Uint8Array;
}

export function fromRaw(image: Uint8Array): PhysicalMemory {
  return {
    end: image.length,
    read: (address, size) => {
      const bytes = new Uint8Array(size);
      bytes.set(image.subarray(address, Math.min(image.length, address + size)));
      return bytes;
    },
  };
}

export function fromElf(file: Uint8Array): PhysicalMemory & { readonly rips: bigint[] } {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  if (view.getUint32(0, false) !== 0x7f454c46 || view.getUint16(16, true) !== 4) throw new Error('not an ELF core');
  const table = Number(view.getBigUint64(32, true));
  const segments: { from: number; at: number; size: number }[] = [];
  const rips: bigint[] = [];
  for (let i = 0; i < view.getUint16(56, true); i++) {
    const header = table + i * view.getUint16(54, true);
    const from = Number(view.getBigUint64(header + 8, true));
    const size = Number(view.getBigUint64(header + 32, true));
    if (view.getUint32(header, true) === 1) {
      segments.push({ from, size, at: Number(view.getBigUint64(header + 24, true)) });
    } else {
      for (let at = from; at < from + size; ) {
        const name = Math.ceil(view.getUint32(at, true) / 4) * 4;
        const length = view.getUint32(at + 4, true);
        // elf_prstatus: 112 bytes, then r15 .. rdi (15), orig_rax, rip.
        if (view.getUint32(at + 8, true) === 1) rips.push(view.getBigUint64(at + 12 + name + 112 + 16 * 8, true));
        at += 12 + name + Math.ceil(length / 4) * 4;
      }
    }
  }
  return {
    end: Math.max(...segments.map((s) => s.at + s.size)),
    rips,
    read: (address, size) => {
      const bytes = new Uint8Array(size);
      for (const s of segments) {
        const first = Math.max(address, s.at);
        const end = Math.min(address + size, s.at + s.size);
        if (first < end) bytes.set(file.subarray(s.from + first - s.at, s.from + end - s.at), first - address);
      }
      return bytes;
    },
  };
}

interface ForensicModule {
  name: string;
  path: string;
  base: bigint;
  size: number;
}
interface ForensicProcess {
  pid: number;
  parentPid: number;
  name: string;
  eprocess: bigint;
  cr3: bigint;
  createTime: bigint;
  imagePath: string;
  commandLine: string;
  modules: ForensicModule[];
  threads: { tid: number; state: number; start: bigint }[];
  userSid: string;
  vads: { start: bigint; end: bigint; file: string }[];
}
export interface ForensicReport {
  cr3: bigint;
  selfMapIndex: number;
  kernelBase: bigint;
  guid: string;
  age: number;
  build: number;
  buildLab: string;
  processes: ForensicProcess[];
  drivers: ForensicModule[];
  debugger: { kernBase: bigint; moduleList: bigint; processHead: bigint; tag: string; size: number };
  version: { minor: number; machine: number; kernBase: bigint; moduleList: bigint; listLeadsToBlock: boolean };
  sharedData: { build: number; major: number; productType: number; root: string };
  processors: { currentThread: bigint; idleThread: bigint; number: number }[];
}

const LIMIT = 10_000;
const VAD_FLAGS = '_MMVAD_FLAGS';

/** Finds System's PML4: the only page in the range with exactly one reference to itself, at a kernel index. */
export function findRoot(memory: PhysicalMemory): { root: number; index: number } {
  const found: { root: number; index: number }[] = [];
  for (let page = 0x1a0000; page < 0x2a0000; page += 0x1000) {
    const bytes = memory.read(page, 0x1000);
    const view = new DataView(bytes.buffer);
    const self: number[] = [];
    for (let i = 0; i < 512; i++) {
      const low = view.getUint32(i * 8, true);
      const high = view.getUint32(i * 8 + 4, true);
      if ((low & 1) === 1 && (high & 0xfffff) * 2 ** 32 + (low & 0xfffff000) === page) self.push(i);
    }
    if (self.length === 1 && self[0]! >= 0x100 && self[0]! <= 0x1fe) found.push({ root: page, index: self[0]! });
  }
  if (found.length !== 1) throw new Error(`${found.length} candidates for the page table root`);
  return found[0]!;
}

function hex(value: number, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, '0');
}

class Virtual {
  constructor(
    readonly memory: PhysicalMemory,
    readonly root: number,
  ) {}

  translate(va: bigint): number | undefined {
    let table = this.root;
    for (const shift of [39n, 30n, 21n, 12n]) {
      const bytes = this.memory.read(table + Number((va >> shift) & 511n) * 8, 8);
      const entry = new DataView(bytes.buffer).getBigUint64(0, true);
      if ((entry & 1n) === 0n) return undefined;
      const frame = Number(entry & 0xf_ffff_ffff_f000n);
      if (shift === 12n) return frame + Number(va & 0xfffn);
      if ((entry & 0x80n) !== 0n && shift < 39n) {
        const mask = (1n << shift) - 1n;
        return Number((entry & 0xf_ffff_ffff_f000n & ~mask) | (va & mask));
      }
      table = frame;
    }
    return undefined;
  }

  tryRead(va: bigint, size: number): Uint8Array | undefined {
    const out = new Uint8Array(size);
    for (let done = 0; done < size; ) {
      const at = BigInt.asUintN(64, va + BigInt(done));
      const length = Math.min(size - done, 0x1000 - Number(at & 0xfffn));
      const physical = this.translate(at);
      if (physical === undefined) return undefined;
      out.set(this.memory.read(physical, length), done);
      done += length;
    }
    return out;
  }

  read(va: bigint, size: number): Uint8Array {
    const bytes = this.tryRead(va, size);
    if (!bytes) throw new Error(`0x${va.toString(16)} is not mapped`);
    return bytes;
  }

  u(va: bigint, size: number): bigint {
    return this.read(va, size).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  }

  text(va: bigint, max: number): string {
    const bytes = this.read(va, max);
    const end = bytes.indexOf(0);
    return String.fromCharCode(...bytes.subarray(0, end < 0 ? max : end));
  }
}

/** Addresses of mapped 4 KiB pages of the kernel half, ascending, that begin with MZ. */
function* imageBases(virtual: Virtual, memory: PhysicalMemory): Generator<bigint> {
  const entries = (table: number): { i: number; frame: number }[] => {
    const view = new DataView(memory.read(table, 4096).buffer);
    const out: { i: number; frame: number }[] = [];
    for (let i = 0; i < 512; i++) {
      const entry = view.getBigUint64(i * 8, true);
      if ((entry & 1n) === 1n) out.push({ i, frame: Number(entry & 0xf_ffff_ffff_f000n) });
    }
    return out;
  };
  // Kernel images lie in 0xFFFFF800_00000000 .. 0xFFFFFFFF_FFFFFFFF.
  for (const a of entries(virtual.root).filter((e) => e.i >= 0x1f0 && e.frame !== virtual.root)) {
    for (const b of entries(a.frame))
      for (const c of entries(b.frame))
        for (const d of entries(c.frame)) {
          const head = memory.read(d.frame, 2);
          if (head[0] === 0x4d && head[1] === 0x5a) {
            const va = (BigInt(a.i) << 39n) | (BigInt(b.i) << 30n) | (BigInt(c.i) << 21n) | (BigInt(d.i) << 12n);
            yield BigInt.asUintN(64, BigInt.asIntN(48, va));
          }
        }
  }
}

/** Finds the kernel: an image with the RSDS record of ntkrnlmp.pdb within 4 MiB of its MZ. */
function findKernel(virtual: Virtual, memory: PhysicalMemory): { base: bigint; guid: string; age: number } {
  const name = 'ntkrnlmp.pdb';
  for (const base of imageBases(virtual, memory)) {
    for (let at = 0; at < 0x400000; at += 0x1000) {
      const page = virtual.tryRead(base + BigInt(at), 0x1000);
      if (!page) continue;
      const text = Buffer.from(page.buffer).toString('latin1');
      const rsds = text.indexOf('RSDS');
      if (rsds < 0 || text.slice(rsds + 24, rsds + 24 + name.length) !== name) continue;
      const view = new DataView(page.buffer);
      let guid =
        hex(view.getUint32(rsds + 4, true), 8) +
        hex(view.getUint16(rsds + 8, true), 4) +
        hex(view.getUint16(rsds + 10, true), 4);
      for (let i = 12; i < 20; i++) guid += hex(page[rsds + i]!, 2);
      return { base, guid, age: view.getUint32(rsds + 20, true) };
    }
  }
  throw new Error('no kernel found');
}

/** Reads the whole story out of physical memory. @param symbols gives the symbol file of a GUID and age */
export function analyse(memory: PhysicalMemory, symbols: (guid: string, age: number) => Isf): ForensicReport {
  const { root, index } = findRoot(memory);
  const kernel = new Virtual(memory, root);
  const { base, guid, age } = findKernel(kernel, memory);
  const isf = symbols(guid, age);
  const symbol = (name: string): bigint => {
    const entry = isf.symbols[name];
    if (!entry) throw new Error(`no symbol ${name}`);
    return base + BigInt(entry.address);
  };
  const off = (struct: string, ...path: string[]): bigint => {
    let total = 0;
    let current = struct;
    for (const name of path) {
      const field = isf.user_types[current]!.fields[name]!;
      total += field.offset;
      current = field.type.name ?? '';
    }
    return BigInt(total);
  };
  const unicode = (virtual: Virtual, va: bigint): string => {
    const length = Number(virtual.u(va, 2));
    if (length === 0) return '';
    const bytes = virtual.read(virtual.u(va + off('_UNICODE_STRING', 'Buffer'), 8), length);
    return Buffer.from(bytes).toString('utf16le');
  };
  const list = (virtual: Virtual, head: bigint, link: bigint): bigint[] => {
    const out: bigint[] = [];
    let previous = head;
    for (let at = virtual.u(head, 8); at !== head; at = virtual.u(at, 8)) {
      if (virtual.u(at + 8n, 8) !== previous) throw new Error('a list is not linked both ways');
      if (out.length > LIMIT) throw new Error('a list does not end');
      out.push(at - link);
      previous = at;
    }
    return out;
  };
  const ldr = (virtual: Virtual, entry: bigint): ForensicModule => ({
    name: unicode(virtual, entry + off('_LDR_DATA_TABLE_ENTRY', 'BaseDllName')),
    path: unicode(virtual, entry + off('_LDR_DATA_TABLE_ENTRY', 'FullDllName')),
    base: virtual.u(entry + off('_LDR_DATA_TABLE_ENTRY', 'DllBase'), 8),
    size: Number(virtual.u(entry + off('_LDR_DATA_TABLE_ENTRY', 'SizeOfImage'), 4)),
  });
  const sid = (va: bigint): string => {
    const count = Number(kernel.u(va + 1n, 1));
    const parts = Array.from({ length: count }, (_, i) => kernel.u(va + 8n + BigInt(i * 4), 4));
    return ['S', 1, kernel.u(va + 7n, 1), ...parts].join('-');
  };
  const vadsOf = (node: bigint, out: ForensicProcess['vads'], depth = 0): void => {
    if (node === 0n) return;
    if (depth > 64) throw new Error('the VAD tree is too deep');
    vadsOf(kernel.u(node, 8), out, depth + 1);
    const vpn = (field: string): bigint =>
      kernel.u(node + off('_MMVAD_SHORT', `${field}Vpn`), 4) |
      (kernel.u(node + off('_MMVAD_SHORT', `${field}VpnHigh`), 1) << 32n);
    const flags = kernel.u(node + off('_MMVAD_SHORT', 'u'), 4);
    const type = isf.user_types[VAD_FLAGS]!.fields.VadType!.type;
    let file = '';
    if (((flags >> BigInt(type.bit_position!)) & ((1n << BigInt(type.bit_length!)) - 1n)) === 2n) {
      const subsection = kernel.u(node + off('_MMVAD', 'Subsection'), 8);
      const area = kernel.u(subsection + off('_SUBSECTION', 'ControlArea'), 8);
      const object = kernel.u(area + off('_CONTROL_AREA', 'FilePointer'), 8) & ~0xfn;
      file = unicode(kernel, object + off('_FILE_OBJECT', 'FileName'));
    }
    out.push({ start: vpn('Starting') << 12n, end: (vpn('Ending') << 12n) + 0xfffn, file });
    vadsOf(kernel.u(node + 8n, 8), out, depth + 1);
  };
  const processes = list(kernel, symbol('PsActiveProcessHead'), off('_EPROCESS', 'ActiveProcessLinks')).map((p) => {
    if (kernel.u(p, 1) !== 3n) throw new Error('an EPROCESS has another object type');
    const cr3 = kernel.u(p + off('_KPROCESS', 'DirectoryTableBase'), 8);
    const own = new Virtual(memory, Number(cr3 & 0xf_ffff_ffff_f000n));
    const peb = kernel.u(p + off('_EPROCESS', 'Peb'), 8);
    let modules: ForensicModule[] = [];
    let commandLine = '';
    if (peb !== 0n) {
      const loader = own.u(peb + off('_PEB', 'Ldr'), 8);
      modules = list(own, loader + off('_PEB_LDR_DATA', 'InLoadOrderModuleList'), 0n).map((entry) => ldr(own, entry));
      const parameters = own.u(peb + off('_PEB', 'ProcessParameters'), 8);
      commandLine = unicode(own, parameters + off('_RTL_USER_PROCESS_PARAMETERS', 'CommandLine'));
      for (const module of modules) {
        if (own.u(module.base, 2) !== 0x5a4dn) throw new Error(`${module.name} has no header`);
      }
    }
    const audit = kernel.u(p + off('_EPROCESS', 'SeAuditProcessCreationInfo'), 8);
    const token = kernel.u(p + off('_EPROCESS', 'Token'), 8) & ~0xfn;
    const vads: ForensicProcess['vads'] = [];
    vadsOf(kernel.u(p + off('_EPROCESS', 'VadRoot'), 8), vads);
    return {
      pid: Number(kernel.u(p + off('_EPROCESS', 'UniqueProcessId'), 8)),
      parentPid: Number(kernel.u(p + off('_EPROCESS', 'InheritedFromUniqueProcessId'), 8)),
      name: kernel.text(p + off('_EPROCESS', 'ImageFileName'), 15),
      eprocess: p,
      cr3,
      createTime: kernel.u(p + off('_EPROCESS', 'CreateTime'), 8),
      imagePath: unicode(kernel, audit),
      commandLine,
      modules,
      threads: list(kernel, p + off('_EPROCESS', 'ThreadListHead'), off('_ETHREAD', 'ThreadListEntry')).map((t) => {
        if (kernel.u(t, 1) !== 6n) throw new Error('an ETHREAD has another object type');
        if (kernel.u(t + off('_KTHREAD', 'Process'), 8) !== p) throw new Error('a thread names another process');
        return {
          tid: Number(kernel.u(t + off('_ETHREAD', 'Cid', 'UniqueThread'), 8)),
          state: Number(kernel.u(t + off('_KTHREAD', 'State'), 1)),
          start: kernel.u(t + off('_ETHREAD', 'StartAddress'), 8),
        };
      }),
      userSid: sid(kernel.u(kernel.u(token + off('_TOKEN', 'UserAndGroups'), 8), 8)),
      vads,
    };
  });
  // KDDEBUGGER_DATA64 is not in symbol files; these offsets are those of wdbgexts.h.
  const block = symbol('KdDebuggerDataBlock');
  const version = symbol('KdVersionBlock');
  const v = (field: string, size: number): bigint => kernel.u(version + off('_DBGKD_GET_VERSION64', field), size);
  const listHead = v('DebuggerDataList', 8);
  const shared = 0xfffff78000000000n;
  const s = (field: string, size: number): number => Number(kernel.u(shared + off('_KUSER_SHARED_DATA', field), size));
  return {
    cr3: BigInt(root),
    selfMapIndex: index,
    kernelBase: base,
    guid,
    age,
    build: Number(kernel.u(symbol('NtBuildNumber'), 4) & 0xffffn),
    buildLab: kernel.text(symbol('NtBuildLab'), 64),
    processes,
    drivers: list(kernel, symbol('PsLoadedModuleList'), 0n).map((entry) => ldr(kernel, entry)),
    debugger: {
      tag: kernel.text(block + 0x10n, 4),
      size: Number(kernel.u(block + 0x14n, 4)),
      kernBase: kernel.u(block + 0x18n, 8),
      moduleList: kernel.u(block + 0x48n, 8) - base,
      processHead: kernel.u(block + 0x50n, 8) - base,
    },
    version: {
      minor: Number(v('MinorVersion', 2)),
      machine: Number(v('MachineType', 2)),
      kernBase: v('KernBase', 8),
      moduleList: v('PsLoadedModuleList', 8) - base,
      listLeadsToBlock: kernel.u(listHead, 8) === block && kernel.u(block, 8) === listHead,
    },
    sharedData: {
      build: s('NtBuildNumber', 4),
      major: s('NtMajorVersion', 4),
      productType: s('NtProductType', 4),
      root: Buffer.from(kernel.read(shared + off('_KUSER_SHARED_DATA', 'NtSystemRoot'), 20)).toString('utf16le'),
    },
    processors: Array.from({ length: Number(kernel.u(symbol('KeNumberProcessors'), 4)) }, (_, i) => {
      const prcb = kernel.u(symbol('KiProcessorBlock') + BigInt(i * 8), 8);
      return {
        currentThread: kernel.u(prcb + off('_KPRCB', 'CurrentThread'), 8),
        idleThread: kernel.u(prcb + off('_KPRCB', 'IdleThread'), 8),
        number: Number(kernel.u(prcb + off('_KPRCB', 'Number'), 4)),
      };
    }),
  };
}
