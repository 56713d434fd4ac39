import { Access, type Gpa, Verdict } from '@introd/abi';
import { enterProtectedMode } from '@introd/hv-sim';
import { Assembler } from '@introd/x86/encoder';
import { describe, expect, it } from 'vitest';
import { get64, microMachine, put64, SimGuest } from '../sim-guest.js';

const PDPTES = 0x1000;
const DIRECTORY = 0x2000;
const TABLE = 0x3000;
const CODE = 0x1_0000;
const DATA = 0x2_0000;
const STACK = 0x3_0000;

/** A guest in ring 0 of 32-bit code whose first 2 MiB are mapped where they are, by PAE or 32-bit tables. */
function guestOf(paging: 'pae' | '32-bit', text: string): SimGuest {
  const machine = microMachine();
  if (paging === 'pae') {
    put64(machine, PDPTES, BigInt(DIRECTORY) | 1n);
    put64(machine, DIRECTORY, BigInt(TABLE) | 3n);
    for (let page = 0; page < 512; page++) {
      put64(machine, TABLE + page * 8, BigInt(page * 4096) | 3n);
    }
  } else {
    put64(machine, DIRECTORY, BigInt(TABLE) | 3n);
    for (let page = 0; page < 512; page += 2) {
      put64(machine, TABLE + page * 4, (BigInt((page + 1) * 4096 + 3) << 32n) | BigInt(page * 4096 + 3));
    }
  }
  const program = new Assembler({ bitness: 32 }).section('code', BigInt(CODE)).assemble(`${text}\nhlt`).link();
  machine.writePhysical(CODE as Gpa, program.sections.get('code')!.bytes);
  enterProtectedMode(machine.vcpu(0), {
    paging,
    cr3: BigInt(paging === 'pae' ? PDPTES : DIRECTORY),
    eip: CODE,
    esp: STACK,
  });
  return new SimGuest(machine);
}

/** Forbids entries that are present and the user's. */
function guardEntry(guest: SimGuest, gpa: number, entrySize: 4 | 8): bigint[] {
  const seen: bigint[] = [];
  guest.engine.hooks.page.set({
    gpa: gpa as Gpa,
    length: entrySize,
    access: Access.WRITE,
    pagingStructure: { entrySize },
    callback: (event) => {
      const write = event.pageTableWrite!;
      seen.push(write.new);
      event.verdict = (write.newLow & 5) === 5 ? Verdict.NOT_ALLOWED : Verdict.ALLOWED;
    },
  });
  return seen;
}

describe('a PAE entry that is written in two halves', () => {
  const ENTRY = TABLE + 300 * 8;
  const halves = (high: number, low: number, order: 'high first' | 'low first'): string => {
    const writes = [`mov dword ptr [${ENTRY + 4}], ${high}`, `mov dword ptr [${ENTRY}], ${low}`];
    return (order === 'high first' ? writes : writes.toReversed()).join('\n');
  };

  for (const order of ['high first', 'low first'] as const) {
    it(`${order}: is never what the hook forbids [1.2.4-13] [1.2.6] [P5.9]`, () => {
      const guest = guestOf('pae', `${halves(1, 0x5007, order)}\nmov esi, 7`);
      put64(guest.machine, ENTRY, 0x6003n);
      const seen = guardEntry(guest, ENTRY, 8);
      let forbidden = false;
      guest.machine.observe(() => {
        forbidden ||= (get64(guest.machine, ENTRY) & 5n) === 5n;
      });
      guest.run(60);
      expect(forbidden).toBe(false);
      expect(get64(guest.machine, ENTRY)).toBe(0x1_0000_6003n);
      // Every state that memory would have had was judged: the halves are merged with what is there.
      expect(seen).toEqual(order === 'high first' ? [0x1_0000_6003n, 0x1_0000_5007n] : [0x5007n, 0x1_0000_6003n]);
      expect(guest.vcpu.get('rsi')).toBe(7n);
      guest.close();
    });

    it(`${order}: passes the same hook with another value [1.2.6] [P5.9]`, () => {
      const guest = guestOf('pae', `${halves(1, 0x5003, order)}\nmov esi, 7`);
      put64(guest.machine, ENTRY, 0x6003n);
      const seen = guardEntry(guest, ENTRY, 8);
      guest.run(60);
      expect(get64(guest.machine, ENTRY)).toBe(0x1_0000_5003n);
      expect(seen.at(-1)).toBe(0x1_0000_5003n);
      expect(guest.vcpu.get('rsi')).toBe(7n);
      guest.close();
    });
  }

  it('passes as one with CMPXCHG8B [P5.8]', () => {
    const guest = guestOf(
      'pae',
      `mov edi, ${ENTRY}\nmov eax, 24579\nxor edx, edx\nmov ebx, 20483\nmov ecx, 1\ncmpxchg8b [edi]`,
    );
    put64(guest.machine, ENTRY, 0x6003n);
    const seen = guardEntry(guest, ENTRY, 8);
    guest.run(60);
    expect(seen).toEqual([0x1_0000_5003n]);
    expect(get64(guest.machine, ENTRY)).toBe(0x1_0000_5003n);
    guest.close();
  });
});

describe('an entry of 32-bit paging', () => {
  const ENTRY = TABLE + 301 * 4;

  function write(value: number, at = ENTRY) {
    const guest = guestOf('32-bit', `mov dword ptr [${at}], ${value}\nmov esi, 7`);
    const before = get64(guest.machine, ENTRY - 4);
    const seen = guardEntry(guest, ENTRY, 4);
    guest.run(60);
    expect(guest.vcpu.get('rsi')).toBe(7n);
    return { guest, before, seen };
  }

  it('is kept from the user [1.2.6]', () => {
    const { guest, before, seen } = write(0x5007);
    expect(seen).toEqual([0x5007n]);
    expect(get64(guest.machine, ENTRY - 4)).toBe(before);
    guest.close();
  });

  it('takes another value through the same hook, and its neighbour is not touched [1.2.6]', () => {
    const { guest, before, seen } = write(0x5003);
    expect(seen).toEqual([0x5003n]);
    expect(get64(guest.machine, ENTRY - 4)).toBe((0x5003n << 32n) | (before & 0xffff_ffffn));
    guest.close();
  });

  it('has nothing to do with the entry beside it in the same 8 bytes [P5.1]', () => {
    const { guest, seen } = write(0x5007, ENTRY - 4);
    expect(seen).toEqual([]);
    expect(get64(guest.machine, ENTRY - 4) & 0xffff_ffffn).toBe(0x5007n);
    guest.close();
  });

  it('takes the replacement that a hook makes of it', () => {
    const guest = guestOf('32-bit', `mov dword ptr [${ENTRY}], 20487`);
    const before = get64(guest.machine, ENTRY - 4);
    guest.engine.hooks.page.set({
      gpa: ENTRY as Gpa,
      length: 4,
      access: Access.WRITE,
      pagingStructure: { entrySize: 4 },
      callback: ({ pageTableWrite: one }) => one!.replace(one!.new & ~4n),
    });
    guest.run(60);
    expect(get64(guest.machine, ENTRY - 4)).toBe((0x5003n << 32n) | (before & 0xffff_ffffn));
    guest.close();
  });

  it('is asked about at each of two writes by one instruction [P5.14]', () => {
    const guest = guestOf(
      '32-bit',
      `mov ecx, 2\nmov eax, 20483\nagain: mov [${ENTRY}], eax\nadd eax, 4096\ndec ecx\njne again`,
    );
    const seen = guardEntry(guest, ENTRY, 4);
    guest.run(60);
    expect(seen).toEqual([0x5003n, 0x6003n]);
    guest.close();
  });
});

describe('32-bit code', () => {
  for (const { name, text, gpa, value } of [
    { name: 'MOV', text: 'mov [ebx], eax', gpa: DATA, value: 4 },
    { name: 'PUSH', text: 'push eax', gpa: STACK - 4, value: 4 },
    { name: 'a segment base', text: 'mov [es:ebx+0], eax', gpa: DATA + 0x1000, value: 4 },
    { name: 'STOS', text: 'mov edi, ebx\nstosd', gpa: DATA + 0x1000, value: 4 },
  ]) {
    for (const eax of [0x41, 0x42]) {
      it(`is judged by what it stores with ${name}, ${eax === 0x41 ? 'and blocked' : 'and passes the same hook'} [1.2.4-11] [1.2.5]`, () => {
        const guest = guestOf('pae', `${text}\nmov esi, 7`);
        guest.vcpu.set('rbx', BigInt(DATA));
        guest.vcpu.set('rax', BigInt(eax));
        if (gpa === DATA + 0x1000) {
          guest.vcpu.set('esBase', 0x1000n);
        }
        const seen: number[] = [];
        guest.engine.hooks.page.set({
          gpa: gpa as Gpa,
          length: value,
          access: Access.WRITE,
          callback: (event) => {
            const byte = event.newValue()!.bytes[0]!;
            seen.push(byte);
            event.verdict = byte === 0x41 ? Verdict.NOT_ALLOWED : Verdict.ALLOWED;
          },
        });
        guest.run(60);
        expect(seen).toEqual([eax]);
        expect(get64(guest.machine, gpa) & 0xffn).toBe(eax === 0x41 ? 0n : BigInt(eax));
        expect(guest.vcpu.get('rsi')).toBe(7n);
        guest.close();
      });
    }
  }
});
