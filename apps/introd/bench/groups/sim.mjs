import { enterLongMode, Machine } from '@introd/hv-sim';
import { assert } from '../operation.mjs';

const PML4 = 0x1000;
const PDPT = 0x2000;
const CODE = 0x1_0000;
const DATA = 0x2_0000;
const STACK = 0x3_0000;
const MASK = 0xffff_ffff_ffff_ffffn;

/** Each loop counts its rounds in RCX and adds them up, in a register or in memory; one round is `length` instructions. */
const LOOPS = [
  {
    op: 'instructions per second, arithmetic loop',
    length: 7,
    code: [
      [0x48, 0xff, 0xc1], // inc rcx
      [0x48, 0x01, 0xc8], // add rax, rcx
      [0x48, 0x31, 0xc2], // xor rdx, rax
      [0x48, 0x8d, 0x3c, 0x48], // lea rdi, [rax+rcx*2]
      [0x48, 0x29, 0xfe], // sub rsi, rdi
      [0x48, 0x85, 0xc9], // test rcx, rcx
      [0x75, 0xeb], // jnz to the beginning
    ],
    sum: ({ vcpu }) => vcpu.get('rax'),
  },
  {
    op: 'instructions per second, memory loop',
    length: 7,
    code: [
      [0x48, 0xff, 0xc1], // inc rcx
      [0x48, 0x89, 0x0b], // mov [rbx], rcx
      [0x48, 0x8b, 0x03], // mov rax, [rbx]
      [0x48, 0x01, 0x43, 0x08], // add [rbx+8], rax
      [0x48, 0x8b, 0x53, 0x08], // mov rdx, [rbx+8]
      [0x48, 0x85, 0xc9], // test rcx, rcx
      [0x75, 0xea], // jnz to the beginning
    ],
    sum: ({ machine }) => read64(machine, DATA + 8),
  },
  {
    op: 'instructions per second, call loop',
    length: 8,
    code: [
      [0x48, 0xff, 0xc1], // inc rcx
      [0xe8, 0x02, 0x00, 0x00, 0x00], // call the function
      [0xeb, 0xf6], // jmp to the beginning
      [0x55], // push rbp
      [0x48, 0x89, 0xe5], // mov rbp, rsp
      [0x48, 0x01, 0xc8], // add rax, rcx
      [0x5d], // pop rbp
      [0xc3], // ret
    ],
    sum: ({ vcpu }) => vcpu.get('rax'),
  },
];

function put64(machine, gpa, value) {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  machine.writePhysical(gpa, bytes);
}

function read64(machine, gpa) {
  const bytes = new Uint8Array(8);
  machine.readPhysical(gpa, bytes);
  return new DataView(bytes.buffer).getBigUint64(0, true);
}

function operation({ op, length, code, sum }) {
  const machine = new Machine({ memory: [{ start: 0, size: 0x20_0000 }] });
  put64(machine, PML4, BigInt(PDPT) | 3n);
  put64(machine, PDPT, 0x83n); // one page of 1 GiB
  machine.writePhysical(CODE, Uint8Array.from(code.flat()));
  const vcpu = machine.vcpu(0);
  enterLongMode(vcpu, { cr3: BigInt(PML4), rip: BigInt(CODE), rsp: BigInt(STACK) });
  vcpu.set('rbx', BigInt(DATA));
  let rounds = 0n;
  return {
    group: 'sim',
    op,
    unit: length,
    run(count) {
      const before = machine.instructions;
      const result = machine.run(count * length);
      rounds += BigInt(count);
      assert(result === 'budget', `the machine must run on, it says ${result} ${machine.unsupported ?? ''}`);
      assert(machine.instructions - before === count * length, 'every instruction must be counted');
      assert(vcpu.rip === BigInt(CODE) && vcpu.get('rcx') === rounds, 'the loop must be at its beginning');
      assert(sum({ machine, vcpu }) === (((rounds * (rounds + 1n)) / 2n) & MASK), 'the sum must be right');
    },
  };
}

/** How fast the embedded machine runs guest code, in nanoseconds per instruction. */
export function operations() {
  return LOOPS.map(operation);
}
