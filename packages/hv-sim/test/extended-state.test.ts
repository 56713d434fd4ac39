import { Access, ExitKind, Reply, XSAVE_AREA, XStateComponent } from '@introd/abi';
import { describe, expect, test } from 'vitest';
import { AT as AT32, descriptor, ProtectedGuest, SELECTOR } from './protected-guest.js';
import { AT, frame, TinyGuest } from './tiny-guest.js';

const { X87, SSE, AVX } = XStateComponent;
const FIELD = XSAVE_AREA.offset;
const COMPACTED = 1n << 63n;
const ENDED = 0x77;
/** Switches CR4.OSXSAVE on and XCR0 to x87, SSE and AVX; RBX is the data. */
const START = `
  mov rax, cr4
  bts rax, 18
  mov cr4, rax
  xor ecx, ecx
  xor edx, edx
  mov eax, 7
  xsetbv
  mov rbx, data`;
const XMM3 = FIELD.xmm + 3 * 16;
const YMM3 = FIELD.ymmHigh + 3 * 16;
const VALUE = 0x1122_3344_5566_7788n;

function ran(text: string, prepare?: (guest: TinyGuest) => void): TinyGuest {
  const guest = new TinyGuest();
  guest.code(`${text}\nmov al, 0x77\nout 0xf4, al`);
  prepare?.(guest);
  guest.machine.run(400);
  return guest;
}

/** Writes an area into the guest's data: a value in XMM3 and the upper half of YMM3, and a header. */
function writeArea(guest: TinyGuest, present: number, layout = 0n, at: number = AT.data): void {
  guest.write64(at + FIELD.fcw, 0x27fn);
  guest.write64(at + FIELD.mxcsr, 0x1fa0n);
  guest.write64(at + XMM3, VALUE);
  guest.write64(at + YMM3, ~VALUE & 0xffff_ffff_ffff_ffffn);
  guest.write64(at + FIELD.xstateBv, BigInt(present));
  guest.write64(at + FIELD.xcompBv, layout);
}

/** The area that the guest has at its end, as a port sees it. */
function state(guest: TinyGuest) {
  const bytes = new Uint8Array(XSAVE_AREA.size);
  const port = guest.machine.openPort();
  const size = port.readXsaveArea(0, bytes);
  port.close();
  const view = new DataView(bytes.buffer);
  return {
    size,
    fcw: view.getUint16(FIELD.fcw, true),
    mxcsr: view.getUint32(FIELD.mxcsr, true),
    xmm3: view.getBigUint64(XMM3, true),
    ymm3: view.getBigUint64(YMM3, true),
    inUse: view.getUint32(FIELD.xstateBv, true),
  };
}

describe('saving', () => {
  const LOAD = `
    mov rax, 0x1122334455667788
    movq xmm3, rax`;

  test('XSAVE writes the requested components, and of the header their bits only', () => {
    const guest = ran(`${START}${LOAD}\nmov eax, 2\nxor edx, edx\nxsave [rbx]`, (prepared) => {
      prepared.write64(AT.data + FIELD.xstateBv, 0xf007n);
      prepared.write64(AT.data + FIELD.xcompBv, 0x55n);
      prepared.write64(AT.data + FIELD.fcw, 0x9999n);
    });
    expect(guest.machine.powerOffCode).toBe(ENDED);
    expect(guest.read64(AT.data + XMM3)).toBe(VALUE);
    expect(guest.read64(AT.data + FIELD.mxcsr)).toBe(0xffff_0000_1f80n);
    expect(guest.read64(AT.data + FIELD.xstateBv)).toBe(0xf007n);
    expect(guest.read64(AT.data + FIELD.xcompBv)).toBe(0x55n);
    expect(guest.read64(AT.data + FIELD.fcw)).toBe(0x9999n);
  });

  test('XSAVEOPT leaves out what is in its initial configuration, XSAVE does not', () => {
    for (const [name, written] of [
      ['xsave', 0n],
      ['xsaveopt', 0x4444n],
    ] as const) {
      const guest = ran(`${START}${LOAD}\nmov eax, 7\nxor edx, edx\n${name} [rbx]`, (prepared) => {
        prepared.write64(AT.data + YMM3, 0x4444n);
        prepared.write64(AT.data + FIELD.xstateBv, 7n);
      });
      expect(guest.read64(AT.data + YMM3), name).toBe(written);
      expect(guest.read64(AT.data + FIELD.xstateBv), name).toBe(BigInt(SSE));
    }
  });

  test.each(['xsavec', 'xsaves'])('%s writes the whole header of the compacted form', (name) => {
    const guest = ran(`${START}${LOAD}\nmov eax, 6\nxor edx, edx\n${name} [rbx]`, (prepared) => {
      prepared.write64(AT.data + FIELD.xstateBv, ~0n & 0xffff_ffff_ffff_ffffn);
    });
    expect(guest.machine.powerOffCode).toBe(ENDED);
    expect(guest.read64(AT.data + FIELD.xstateBv)).toBe(BigInt(SSE));
    expect(guest.read64(AT.data + FIELD.xcompBv)).toBe(COMPACTED | BigInt(SSE | AVX));
    expect(guest.read64(AT.data + XMM3)).toBe(VALUE);
  });

  test('XSAVEC counts SSE as in use when only MXCSR differs', () => {
    const guest = ran(
      `${START}\nmov dword ptr [rbx + 0x800], 0x1fa0\nldmxcsr [rbx + 0x800]\nmov eax, 7\nxor edx, edx\nxsavec [rbx]`,
    );
    expect(guest.read64(AT.data + FIELD.xstateBv)).toBe(BigInt(SSE));
    expect(guest.read64(AT.data + FIELD.mxcsr)).toBe(0xffff_0000_1fa0n);
  });

  test.each<[string, number, string, bigint]>([
    ['XSAVEC', AVX, 'xsavec [rbx]', 0x5a5an],
    ['XSAVES', AVX, 'xsaves [rbx]', 0x5a5an],
    ['XSAVEC of SSE in its initial configuration', SSE, 'xsavec [rbx]', 0x5a5an],
    ['XSAVE', AVX, 'xsave [rbx]', 0xffff_0000_1f80n],
    ['XSAVEOPT', AVX, 'xsaveopt [rbx]', 0xffff_0000_1f80n],
  ])(
    '%s of the components %i: MXCSR is written with SSE in the compacted form, with AVX too in the standard one',
    (_name, mask, text, written) => {
      const guest = ran(`${START}\nmov eax, ${mask}\nxor edx, edx\n${text}`, (prepared) => {
        prepared.write64(AT.data + FIELD.mxcsr, 0x5a5an);
      });
      expect(guest.machine.powerOffCode).toBe(ENDED);
      expect(guest.read64(AT.data + FIELD.mxcsr)).toBe(written);
    },
  );

  test('XGETBV of register 1 tells what is in use', () => {
    const guest = ran(`${START}\nmov ecx, 1\nxgetbv\nmov r8, rax${LOAD}\nxgetbv\nmov r9, rax`);
    expect([guest.machine.vcpu(0).get('r8'), guest.machine.vcpu(0).get('r9')]).toEqual([0n, BigInt(SSE)]);
  });
});

describe('restoring', () => {
  const RESTORE = `${START}\nmov eax, 7\nxor edx, edx\nxrstor [rbx]`;

  test('XRSTOR takes every component over, in both forms, and a round trip keeps all of it', () => {
    for (const layout of [0n, COMPACTED | 7n]) {
      const guest = ran(`${RESTORE}\nxsave [rbx + 0x400]`, (prepared) => writeArea(prepared, 7, layout));
      expect(guest.machine.powerOffCode).toBe(ENDED);
      const full = { size: 832, fcw: 0x27f | 0x40, mxcsr: 0x1fa0, xmm3: VALUE, ymm3: BigInt.asUintN(64, ~VALUE) };
      expect(state(guest)).toEqual({ ...full, inUse: X87 | SSE | AVX });
      expect(guest.read64(AT.data + 0x400 + XMM3)).toBe(VALUE);
      expect(guest.read64(AT.data + 0x400 + YMM3)).toBe(BigInt.asUintN(64, ~VALUE));
    }
  });

  test('a component without its bit goes to its initial configuration; MXCSR by the form', () => {
    const text = `${RESTORE}\nadd rbx, 0x400\nxrstor [rbx]`;
    const second = AT.data + 0x400;
    const standard = ran(text, (prepared) => {
      writeArea(prepared, 7);
      writeArea(prepared, X87, 0n, second);
    });
    expect(state(standard)).toMatchObject({ mxcsr: 0x1fa0, xmm3: 0n, ymm3: 0n, inUse: X87 });
    const compacted = ran(text, (prepared) => {
      writeArea(prepared, 7);
      writeArea(prepared, X87, COMPACTED | 3n, second);
    });
    expect(state(compacted)).toMatchObject({ mxcsr: 0x1f80, xmm3: 0n, ymm3: 0n, inUse: X87 });
  });

  test('what was not requested stays', () => {
    const guest = ran(`${RESTORE}\nadd rbx, 0x400\nmov eax, 1\nxrstor [rbx]`, (prepared) => {
      writeArea(prepared, 7);
    });
    expect(state(guest)).toMatchObject({ fcw: 0x37f, mxcsr: 0x1fa0, xmm3: VALUE, inUse: SSE | AVX });
  });

  test('XRSTORS takes the compacted form in ring 0 only, and no other form', () => {
    const text = `${START}\nmov eax, 7\nxor edx, edx\nxrstors [rbx]`;
    const taken = ran(text, (prepared) => writeArea(prepared, 7, COMPACTED | 7n));
    expect(taken.machine.powerOffCode).toBe(ENDED);
    expect(state(taken).xmm3).toBe(VALUE);
    expect(ran(text, (prepared) => writeArea(prepared, 7)).machine.powerOffCode).toBe(13);
    for (const name of ['xsaves', 'xrstors']) {
      const user = new TinyGuest().code(`${name} [rsp]`, AT.userCode);
      user.enterUser();
      const record = user.machine.vcpu(0);
      record.set('cr4', record.get('cr4') | (1n << 18n));
      record.set('rsp', BigInt(AT.userStack - 0x400));
      user.machine.run(5);
      expect(user.machine.powerOffCode, name).toBe(13);
    }
  });

  test.each<[string, (guest: TinyGuest) => void]>([
    ['a component that XCR0 has not', (guest) => writeArea(guest, 0xf)],
    ['the top bit of XSTATE_BV', (guest) => guest.write64(AT.data + FIELD.xstateBv, COMPACTED)],
    [
      'the top bit of XSTATE_BV in the compacted form',
      (guest) => {
        writeArea(guest, 7, COMPACTED | 7n);
        guest.write64(AT.data + FIELD.xstateBv, COMPACTED | 7n);
      },
    ],
    ['a component that the compacted layout has not', (guest) => writeArea(guest, 7, COMPACTED | 3n)],
    ['a layout that XCR0 has not', (guest) => writeArea(guest, 7, COMPACTED | 0xfn)],
    ['a layout without the bit of the compacted form', (guest) => writeArea(guest, 7, 7n)],
    ['a reserved part of the standard header', (guest) => guest.write64(AT.data + FIELD.headerRest, 1n)],
    [
      'a reserved part of the compacted header',
      (guest) => {
        writeArea(guest, 7, COMPACTED | 7n);
        guest.write64(AT.data + FIELD.headerRest + 40, 1n);
      },
    ],
    ['reserved bits of MXCSR', (guest) => guest.write64(AT.data + FIELD.mxcsr, 0x1_0000n)],
  ])('%s is #GP, and nothing is taken over', (_name, spoil) => {
    const guest = ran(RESTORE, (prepared) => {
      writeArea(prepared, 7);
      spoil(prepared);
    });
    expect(guest.machine.powerOffCode).toBe(13);
    expect(state(guest)).toMatchObject({ fcw: 0x37f, mxcsr: 0x1f80, xmm3: 0n, ymm3: 0n, inUse: 0 });
  });

  test('pointers of the last x87 instruction have 8 bytes with REX.W, 4 without', () => {
    const guest = ran(
      `mov rbx, data
      fxrstor64 [rbx]
      fxsave [rbx + 0x200]
      fxsave64 [rbx + 0x400]
      fxrstor [rbx]
      fxsave64 [rbx + 0x600]`,
      (prepared) => {
        prepared.write64(AT.data + FIELD.fip, 0x1234_5678_9abcn);
        prepared.write64(AT.data + FIELD.fdp, 0x4321_8765_cba9n);
      },
    );
    const pointers = (at: number) => [guest.read64(AT.data + at + FIELD.fip), guest.read64(AT.data + at + FIELD.fdp)];
    expect(pointers(0x200)).toEqual([0x5678_9abcn, 0x8765_cba9n]);
    expect(pointers(0x400)).toEqual([0x1234_5678_9abcn, 0x4321_8765_cba9n]);
    expect(pointers(0x600)).toEqual([0x5678_9abcn, 0x8765_cba9n]);
  });
});

const TS = 'mov rcx, cr0\nbts rcx, 3\nmov cr0, rcx';
const EM = 'mov rcx, cr0\nbts rcx, 2\nmov cr0, rcx';
const NO_FXSR = 'mov rcx, cr4\nbtr rcx, 9\nmov cr4, rcx';

test.each([
  ['XSAVE without CR4.OSXSAVE', 'mov rbx, data\nxsave [rbx]', 6],
  ['XRSTOR without CR4.OSXSAVE', 'mov rbx, data\nxrstor [rbx]', 6],
  ['XSAVE at 32 bytes behind a multiple of 64', `${START}\nxsave [rbx + 32]`, 13],
  ['XRSTOR at 32 bytes behind a multiple of 64', `${START}\nxrstor [rbx + 32]`, 13],
  ['XSAVE with CR0.TS', `${START}\n${TS}\nxsave [rbx]`, 7],
  ['XRSTOR with CR0.TS', `${START}\n${TS}\nxrstor [rbx]`, 7],
  ['XSAVE with CR0.EM', `${START}\n${EM}\nxsave [rbx]`, ENDED],
  ['FXSAVE with CR0.TS', `mov rbx, data\n${TS}\nfxsave [rbx]`, 7],
  ['FXSAVE with CR0.EM', `mov rbx, data\n${EM}\nfxsave [rbx]`, 7],
  ['PADDB with CR0.TS', `${TS}\npaddb xmm0, xmm1`, 7],
  ['PADDB with CR0.EM', `${EM}\npaddb xmm0, xmm1`, 6],
  ['PADDB without CR4.OSFXSR', `${NO_FXSR}\npaddb xmm0, xmm1`, 6],
  ['PADDB of misaligned memory', 'mov rbx, data\npaddb xmm0, [rbx + 8]', 13],
  ['LDDQU of misaligned memory', 'mov rbx, data\nlddqu xmm0, [rbx + 8]', ENDED],
  ['FNINIT with CR0.TS', `${TS}\nfninit`, 7],
  ['FLDCW with CR0.EM', `mov rbx, data\n${EM}\nfldcw [rbx]`, 7],
  ['WAIT with CR0.TS but not CR0.MP', `mov rcx, cr0\nbtr rcx, 1\nmov cr0, rcx\n${TS}\nwait`, ENDED],
  ['WAIT with CR0.TS and CR0.MP', `${TS}\nwait`, 7],
  ['EMMS with CR0.EM', `${EM}\nemms`, 6],
  // FSW with IE, which FCW does not mask.
  ['WAIT for an exception of restored state', 'mov rbx, data\nmov dword ptr [rbx], 0x1037e\nfxrstor [rbx]\nwait', 16],
  ['FNCLEX before WAIT', 'mov rbx, data\nmov dword ptr [rbx], 0x1037e\nfxrstor [rbx]\nfnclex\nwait', ENDED],
])('%s', (_name, text, code) => {
  expect(ran(text).machine.powerOffCode).toBe(code);
});

test('CPUID tells XSAVE, the components of XCR0 and the sizes of areas', () => {
  const guest = ran(`
    mov eax, 0xd
    xor ecx, ecx
    cpuid
    mov r8, rbx
    mov r9, rcx
    mov r10, rax
    ${START}
    mov eax, 0xd
    xor ecx, ecx
    cpuid
    mov r11, rbx
    mov eax, 0xd
    mov ecx, 1
    cpuid
    mov r12, rax
    mov r13, rbx
    mov eax, 0xd
    mov ecx, 2
    cpuid
    mov r14, rax
    mov r15, rbx`);
  const record = guest.machine.vcpu(0);
  const names = ['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'] as const;
  expect(names.map((name) => record.get(name))).toEqual([576n, 832n, 7n, 832n, 0xfn, 832n, 256n, 576n]);
});

describe('second-level rights', () => {
  /** An area of 832 bytes that crosses from the first page of the data into the next. */
  const ACROSS = AT.data + 0x1000 - 0x200;

  function open(text: string) {
    const guest = new TinyGuest().code(`${START}\nmov rbx, ${ACROSS}\nmov eax, 7\nxor edx, edx\n${text}\nout 0xf4, al`);
    return { guest, port: guest.machine.openPort() };
  }

  test('XSAVE exits at each page that refuses it, with the part of it there, before anything is written', () => {
    const { guest, port } = open('pcmpeqd xmm3, xmm3\nspot: xsave [rbx]');
    for (const page of [AT.data, AT.data + 0x1000]) port.setPageAccess(frame(page), Access.READ);
    const record = port.vcpu(0);
    for (const [address, size] of [
      [ACROSS, 0x200],
      [AT.data + 0x1000, 832 - 0x200],
    ] as const) {
      expect(port.next(10)).toBe(0);
      expect(record.exitKind).toBe(ExitKind.EPT_VIOLATION);
      expect([record.exitAccess, record.exitGpa, record.get32('exitSize')]).toEqual([Access.WRITE, address, size]);
      expect([record.exitGla, record.rip]).toEqual([BigInt(address), guest.label('spot')]);
      expect(guest.read64(ACROSS + XMM3)).toBe(0n);
      port.reply(0, Reply.ALLOW_ONCE);
    }
    expect(port.next(1)).toBe(port.vcpuCount);
    expect(guest.read64(ACROSS + XMM3)).toBe(0xffff_ffff_ffff_ffffn);
    expect(guest.read64(ACROSS + FIELD.xstateBv)).toBe(BigInt(SSE));
  });

  test('XRSTOR exits at each page that refuses it, before anything is taken over, and takes supplied bytes', () => {
    const { guest, port } = open('spot: xrstor [rbx]\nxsave [0x38000]');
    writeArea(guest, 7, 0n, ACROSS);
    for (const page of [AT.data, AT.data + 0x1000]) port.setPageAccess(frame(page), Access.EXECUTE);
    const record = port.vcpu(0);
    expect(port.next(10)).toBe(0);
    expect([record.exitAccess, record.exitGpa, record.get32('exitSize')]).toEqual([Access.READ, ACROSS, 0x200]);
    const supplied = new Uint8Array(64);
    new DataView(supplied.buffer).setUint16(FIELD.fcw, 0x33f, true);
    new DataView(supplied.buffer).setUint32(FIELD.mxcsr, 0x3f80, true);
    record.replyData.set(supplied);
    record.set32('replyDataLength', 64);
    port.reply(0, Reply.SUPPLY_READ);
    expect(port.next(10)).toBe(0);
    expect([record.exitAccess, record.exitGpa]).toEqual([Access.READ, AT.data + 0x1000]);
    const area = new Uint8Array(XSAVE_AREA.size);
    port.readXsaveArea(0, area);
    expect(area[XMM3]).toBe(0);
    port.reply(0, Reply.ALLOW_ONCE);
    // The upper halves are read once the header has told that they are there; their page is allowed already.
    expect(port.next(1)).toBe(port.vcpuCount);
    const view = new DataView(area.buffer);
    port.readXsaveArea(0, area);
    expect([view.getUint16(FIELD.fcw, true), view.getUint32(FIELD.mxcsr, true)]).toEqual([0x33f | 0x40, 0x3f80]);
    expect([view.getBigUint64(XMM3, true), view.getBigUint64(YMM3, true)]).toEqual([VALUE, BigInt.asUintN(64, ~VALUE)]);
  });

  test('a page that the guest itself refuses leaves the area and the registers as they were', () => {
    for (const text of ['xsave [rbx]', 'xrstor [rbx]']) {
      const guest = ran(
        `${START}\nmov rbx, ${ACROSS}\npcmpeqd xmm3, xmm3\nmov eax, 7\nxor edx, edx\n${text}`,
        (prepared) => {
          writeArea(prepared, 7, 0n, ACROSS);
          prepared.map((AT.data >>> 12) + 1, 0n);
        },
      );
      expect(guest.machine.powerOffCode, text).toBe(14);
      expect(guest.machine.vcpu(0).get('cr2'), text).toBe(BigInt(AT.data + 0x1000));
      expect(guest.read64(ACROSS + XMM3), text).toBe(VALUE);
      expect(state(guest).xmm3, text).toBe(0xffff_ffff_ffff_ffffn);
    }
  });

  test('MASKMOVDQU asks for the bytes that it writes, in each page where there are some', () => {
    const guest = new TinyGuest().code(`
      mov rdi, ${AT.data + 0xffc}
      mov rax, 0x0000800080000000
      movq xmm1, rax
      pcmpeqd xmm0, xmm0
      db 0x66, 0x0f, 0xf7, 0xc1 ; maskmovdqu xmm0, xmm1
      out 0xf4, al`);
    const port = guest.machine.openPort();
    for (const page of [AT.data, AT.data + 0x1000]) port.setPageAccess(frame(page), Access.READ);
    const record = port.vcpu(0);
    const seen = [];
    for (let i = 0; i < 2; i++) {
      expect(port.next(10)).toBe(0);
      seen.push([record.exitAccess, record.exitGpa, record.get32('exitSize')]);
      expect(guest.read64(AT.data + 0xff8)).toBe(0n);
      port.reply(0, Reply.ALLOW_ONCE);
    }
    expect(seen).toEqual([
      [Access.WRITE, AT.data + 0xfff, 1],
      [Access.WRITE, AT.data + 0x1001, 1],
    ]);
    expect(port.next(1)).toBe(port.vcpuCount);
    expect([guest.read64(AT.data + 0xff8), guest.read64(AT.data + 0x1000)]).toEqual([0xffn << 56n, 0xff00n]);
  });
});

describe('in 32-bit code', () => {
  /** Switches OSFXSR, OSXSAVE and all of XCR0 on; EBX is the data. */
  const START32 = `
    mov eax, cr4
    or eax, 0x40200
    mov cr4, eax
    xor ecx, ecx
    xor edx, edx
    mov eax, 7
    xsetbv
    mov ebx, data`;
  const XMM8 = FIELD.xmm + 8 * 16;
  const XMM7 = FIELD.xmm + 7 * 16;
  const YMM8 = FIELD.ymmHigh + 8 * 16;

  /** A guest whose registers XMM0..XMM15 and upper halves are all ones. */
  function full(): ProtectedGuest {
    const guest = new ProtectedGuest();
    const port = guest.machine.openPort();
    guest.record.set('xcr0', 7n);
    const area = new Uint8Array(XSAVE_AREA.size);
    area.fill(0xff, FIELD.xmm, FIELD.legacyRest);
    area.fill(0xff, FIELD.ymmHigh);
    area[FIELD.mxcsr] = 0x80;
    area[FIELD.mxcsr + 1] = 0x1f;
    area[FIELD.xstateBv] = SSE | AVX;
    port.writeXsaveArea(0, area);
    port.close();
    return guest;
  }

  test.each(['fxsave [ebx]', 'xsave [ebx]', 'xsavec [ebx]'])('%s writes eight registers', (text) => {
    const guest = full();
    expect(guest.outcome(`${START32}\nmov eax, 7\n${text}`)).toBe(ENDED);
    expect([guest.read32(AT32.data + XMM7), guest.read32(AT32.data + XMM8)]).toEqual([0xffff_ffff, 0]);
    expect(guest.read32(AT32.data + YMM8)).toBe(0);
    expect(guest.read32(AT32.data + YMM8 - 16)).toBe(text.startsWith('x') ? 0xffff_ffff : 0);
  });

  test.each(['fxrstor [ebx]', 'xrstor [ebx]'])('%s leaves the upper eight as they are', (text) => {
    const guest = full();
    guest.write32(AT32.data + FIELD.mxcsr, 0x1f80);
    expect(guest.outcome(`${START32}\nmov eax, 7\n${text}`)).toBe(ENDED);
    const area = new Uint8Array(XSAVE_AREA.size);
    const port = guest.machine.openPort();
    port.readXsaveArea(0, area);
    expect([area[XMM7], area[XMM8], area[YMM8]]).toEqual([0, 0xff, 0xff]);
    expect(area[YMM8 - 16]).toBe(text.startsWith('x') ? 0 : 0xff);
  });

  test.each([
    ['FXSAVE', 'fxsave [fs:0x10]', 13],
    ['XSAVE', 'xsave [fs:0]', 13],
    ['XRSTOR', 'xrstor [fs:0]', 13],
    ['a vector load', 'movups xmm0, [fs:0x1f8]', 13],
    ['a vector load within', 'movups xmm0, [fs:0x1f0]', ENDED],
  ] as const)('%s beyond the limit of its segment', (_name, text, code) => {
    const guest = new ProtectedGuest();
    guest.describe(SELECTOR.spare, descriptor(AT32.data, 0x1ff, 0x93, 4));
    expect(guest.outcome(`${START32}\nmov ax, ${SELECTOR.spare}\nmov fs, ax\n${text}`)).toBe(code);
  });
});

test('what computes with x87, MMX or floating point stops the machine and names the instruction', () => {
  for (const [text, form] of [
    ['fld1', 'Fld1'],
    ['paddb mm0, mm1', 'Paddb_mm_mmm64'],
    ['addps xmm0, xmm1', 'Addps_xmm_xmmm128'],
  ] as const) {
    expect(ran(text).machine.unsupported, text).toContain(`${form} at RIP 0x10000`);
  }
});
