import {
  ExitKind,
  FCW_INITIAL,
  MXCSR_INITIAL,
  Reply,
  XSAVE_AREA,
  XSAVE_HEADER_END,
  XStateComponent,
} from '@introd/abi';
import type { Capability } from '../../port.js';
import type { ConformanceCase } from './case.js';
import * as at from './layout.js';
import { PRELOAD, WRITTEN } from './programs.js';
import { type ConformanceSession, check, equal, throws } from './session.js';

const needs: readonly Capability[] = ['memory', 'registers', 'exits'];
/** No processor has a larger area: 11 KiB with AMX. */
const LARGEST = 0x4000;
/** The register that the program loads. */
const XMM3 = XSAVE_AREA.offset.xmm + 3 * 16;

function readArea(session: ConformanceSession): DataView {
  const bytes = new Uint8Array(LARGEST);
  const size = session.port.readXsaveArea(0, bytes);
  check(size >= XSAVE_HEADER_END && size <= LARGEST, `an XSAVE area of ${size} bytes`);
  return new DataView(bytes.buffer, 0, size);
}

/** Brings VCPU 0 to its VMCALL, before which it has loaded XMM3. */
function loaded(session: ConformanceSession): DataView {
  session.port.setExit({ kind: 'vmcall' }, true);
  session.expectExit(ExitKind.VMCALL);
  return readArea(session);
}

/** Promises about the vector registers. */
export const vectorCases: readonly ConformanceCase[] = [
  {
    name: 'shows the vector registers as an XSAVE area in standard form',
    needs,
    program: 'vectors',
    run(session) {
      const area = loaded(session);
      equal(area.getBigUint64(XMM3, true), WRITTEN, 'low half of XMM3');
      equal(area.getBigUint64(XMM3 + 8, true), PRELOAD, 'high half of XMM3');
      equal(area.getUint32(XSAVE_AREA.offset.mxcsr, true), MXCSR_INITIAL, 'MXCSR');
      equal(area.getUint16(XSAVE_AREA.offset.fcw, true), FCW_INITIAL, 'x87 control word');
      const inUse = area.getUint32(XSAVE_AREA.offset.xstateBv, true);
      equal(inUse & XStateComponent.SSE, XStateComponent.SSE, 'SSE in XSTATE_BV');
      equal(area.getBigUint64(XSAVE_AREA.offset.xcompBv, true), 0n, 'XCOMP_BV');
    },
  },
  {
    name: 'fills as much of an XSAVE area as there is room for, and says how large it is',
    needs,
    program: 'vectors',
    run(session) {
      const area = loaded(session);
      const part = new Uint8Array(XMM3 + 12).fill(0xee);
      equal(session.port.readXsaveArea(0, part.subarray(0, XMM3 + 4)), area.byteLength, 'size of the whole area');
      equal(new DataView(part.buffer).getUint32(XMM3, true), Number(WRITTEN & 0xffff_ffffn), 'a cut register');
      equal(part[XMM3 + 4], 0xee, 'the byte behind the target');
      equal(session.port.readXsaveArea(0, new Uint8Array(0)), area.byteLength, 'size, for an empty target');
    },
  },
  {
    name: 'makes the guest take over vector registers',
    needs,
    program: 'vectors',
    run(session) {
      const area = loaded(session);
      area.setBigUint64(XMM3, 0x0102_0304_0506_0708n, true);
      area.setBigUint64(XMM3 + 8, 0x1112_1314_1516_1718n, true);
      session.port.writeXsaveArea(0, new Uint8Array(area.buffer, 0, area.byteLength));
      equal(readArea(session).getBigUint64(XMM3, true), 0x0102_0304_0506_0708n, 'XMM3, read back');
      session.reply(Reply.SKIP);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), 0x0102_0304_0506_0708n, 'low half as the guest stored it');
      equal(session.read64(at.Mailbox.SECOND_RESULT), 0x1112_1314_1516_1718n, 'high half');
    },
  },
  {
    name: 'clears a component whose bit is not in XSTATE_BV',
    needs,
    program: 'vectors',
    run(session) {
      const area = loaded(session);
      area.setUint32(XSAVE_AREA.offset.xstateBv, 0, true);
      session.port.writeXsaveArea(0, new Uint8Array(area.buffer, 0, area.byteLength));
      session.reply(Reply.SKIP);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), 0n, 'low half of XMM3');
      equal(session.read64(at.Mailbox.SECOND_RESULT), 0n, 'high half');
    },
  },
  {
    name: 'refuses an XSAVE area that no processor would restore, and changes nothing',
    needs,
    program: 'vectors',
    run(session) {
      const area = loaded(session);
      const good = new Uint8Array(area.buffer, 0, area.byteLength).slice();
      const refused = (what: string, source: Uint8Array): void => {
        throws('ERR_GLUE_BAD_XSAVE_AREA', () => session.port.writeXsaveArea(0, source), what);
      };
      const changed = (offset: number, bit: number): Uint8Array => {
        const bytes = good.slice();
        bytes.fill(0, XMM3, XMM3 + 16);
        bytes[offset]! |= bit;
        return bytes;
      };
      refused('an area without a header', good.subarray(0, XSAVE_HEADER_END - 1));
      refused('the compacted form', changed(XSAVE_AREA.offset.xcompBv + 7, 0x80));
      refused('a component that no XCR0 has', changed(XSAVE_AREA.offset.xstateBv + 7, 0x40));
      refused('a reserved byte of the header', changed(XSAVE_AREA.offset.headerRest + 40, 1));
      refused('a reserved bit of MXCSR', changed(XSAVE_AREA.offset.mxcsr + 3, 0x80));
      session.reply(Reply.SKIP);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), WRITTEN, 'low half of XMM3');
    },
  },
  {
    name: 'gives the XSAVE area the size that CPUID tells the guest for its XCR0',
    needs,
    program: 'xsave-size',
    run(session) {
      const area = loaded(session);
      equal(BigInt(area.byteLength), session.read64(at.Mailbox.RESULT), 'EBX of CPUID leaf 0DH');
    },
  },
];
