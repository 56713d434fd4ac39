import type { VcpuRecord } from '@introd/abi';
import { Code, decodeInto, Instruction } from '@introd/x86/decoder';
import type { MachineCore } from './machine-core.js';
import { readVirtual } from './virtual-read.js';

// SDM vol. 3A, 2.2, 2.5 and 3.4.5; CS attributes as the record has them (SDM vol. 3C, table 25-2).
const CR0_PE = 1;
const RFLAGS_VM = 1 << 17;
const EFER_LMA = 1 << 10;
const CS_LONG = 1 << 13;
const CS_BIG = 1 << 14;

/** Mode of a VCPU: its name, and the width of its code in bits. */
function modeOf(record: VcpuRecord): {
  readonly name: string;
  readonly bitness: 16 | 32 | 64;
  readonly lacking: boolean;
} {
  const has = (field: 'cr0' | 'rflags' | 'efer', bit: number) => (record.get(field) & BigInt(bit)) !== 0n;
  if (!has('cr0', CR0_PE)) return { name: 'real mode', bitness: 16, lacking: true };
  if (has('rflags', RFLAGS_VM)) return { name: 'virtual-8086 mode', bitness: 16, lacking: true };
  const code = record.get32('csAttributes');
  const long = has('efer', EFER_LMA);
  if (long && (code & CS_LONG) !== 0) return { name: '64-bit mode', bitness: 64, lacking: false };
  const bitness = (code & CS_BIG) === 0 ? 16 : 32;
  return { name: `${bitness}-bit ${long ? 'compatibility' : 'protected'} mode`, bitness, lacking: false };
}

/** What a VCPU was about to do when it used what the machine lacks: its mode, the instruction, its address and bytes. */
export function unsupportedText(core: MachineCore, vcpu: number): string {
  const record = core.records[vcpu]!;
  const rip = record.get('rip');
  const { name, bitness, lacking } = modeOf(record);
  const subject = `VCPU ${vcpu} in ${name}`;
  const place = `RIP 0x${rip.toString(16)}`;
  if (lacking) {
    return `${subject}, which the machine lacks, at ${place}: put it into a mode that the machine has with enterLongMode, enterCompatibilityMode or enterProtectedMode`;
  }
  const linear = bitness === 64 ? rip : BigInt.asUintN(32, rip + record.get('csBase'));
  const bytes = readVirtual(core, record, linear, 15);
  if (!bytes) return `${subject}: no code at ${place}`;
  const instruction = new Instruction();
  try {
    const failure = decodeInto(bytes, rip, bitness, instruction);
    const form = failure ?? Code[instruction.code];
    const length = failure ? bytes.length : instruction.length;
    return `${subject}: ${form} at ${place}: ${Buffer.from(bytes.subarray(0, length)).toString('hex')}`;
  } finally {
    instruction.free();
  }
}
