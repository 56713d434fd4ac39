import { createVcpuRecord } from '@introd/abi';
import { AccessList, accessedAddresses, DecodedInstruction, decodeInstruction } from '@introd/x86';
import { input } from '../inputs.mjs';
import { assert } from '../operation.mjs';

/** INT3 and NOP that fill the rest of the inputs. */
const FILLER = new Set([0xcc, 0x90]);

/** The instructions of both code inputs without their filler, each with the bytes that follow it. */
function instructions() {
  const list = [];
  for (const name of ['arith64.bin', 'shellcode64.bin']) {
    const bytes = input(name);
    for (let at = 0; at < bytes.length && !FILLER.has(bytes[at]); ) {
      const decoded = decodeInstruction(bytes.subarray(at), BigInt(at));
      assert(decoded instanceof DecodedInstruction, `${name} must decode at ${at}`);
      list.push({ bytes: bytes.subarray(at, at + 15), length: decoded.length, ip: BigInt(at) });
      at += decoded.length;
    }
  }
  return list;
}

function decode() {
  const list = instructions();
  return {
    group: 'decoder',
    op: 'decode, per instruction',
    unit: list.length,
    run(count) {
      for (let i = 0; i < count; i++) {
        for (let at = 0; at < list.length; at++) {
          const { bytes, ip, length } = list[at];
          if (decodeInstruction(bytes, ip).length !== length)
            assert(false, 'the instruction must be as long as before');
        }
      }
    },
  };
}

/** `push qword ptr [rbx+rcx*8+10h]`: a read with base, index and displacement, and the stack write that it implies. */
function addresses() {
  const instruction = decodeInstruction(Uint8Array.of(0xff, 0x74, 0xcb, 0x10), 0x1000n);
  assert(instruction instanceof DecodedInstruction, 'the instruction must decode');
  const vcpu = createVcpuRecord(0);
  vcpu.set('rbx', 0xffff_8000_0002_0000n);
  vcpu.set('rcx', 4n);
  vcpu.set('rsp', 0xffff_8000_0003_0000n);
  const list = new AccessList();
  return {
    group: 'decoder',
    op: 'all accessed addresses of an instruction',
    run(count) {
      for (let i = 0; i < count; i++) {
        list.count = 0;
        accessedAddresses(instruction, vcpu, list);
        if (list.count !== 2 || list.low[0] !== 0x2_0030 || list.low[1] !== 0x2_fff8) assert(false, 'both addresses');
      }
      assert(list.address(0) === 0xffff_8000_0002_0030n, 'the address that is read');
      assert(list.address(1) === 0xffff_8000_0002_fff8n, 'the address that is pushed to');
    },
  };
}

/** Decoding instructions, and what the engine asks of a decoded one. */
export function operations() {
  return [decode(), addresses()];
}
