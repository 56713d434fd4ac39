// MUL, IMUL, DIV and IDIV on the operands of op records.
import { fault } from './fault';
import { OP_DST, OP_SIZE, VCPU_RAX, VCPU_RDX } from './generated/layout';
import {
  divideError,
  divideWide,
  divideWideSigned,
  multiply,
  multiplyFlags,
  multiplyHigh,
  multiplyHighSigned,
  quotient,
  remainder,
} from './multiply';
import { cutToSize, readSource, signExtend } from './operand';
import { general, RAX, RDX, setGeneral, setRegister, setRegisterOfSize } from './state';

/** Writes the double-width result of MUL and IMUL: AX, or DX:AX, EDX:EAX, RDX:RAX. */
function writeWide(size: u32, low: u64, high: u64): void {
  if (size == 1) {
    setRegisterOfSize(VCPU_RAX, 2, (high << 8) | low);
    return;
  }
  setRegisterOfSize(VCPU_RAX, size, low);
  setRegisterOfSize(VCPU_RDX, size, high);
}

export function execMultiply(op: usize, signed: bool): void {
  const size = load<u8>(op, OP_SIZE);
  const factor = readSource(op);
  if (fault) return;
  const a = cutToSize(general(RAX), size);
  if (size == 8) {
    const low = a * factor;
    const high = signed ? multiplyHighSigned(a, factor) : multiplyHigh(a, factor);
    writeWide(8, low, high);
    multiplyFlags<u64>(low, high != (signed ? u64(<i64>low >> 63) : 0));
    return;
  }
  const product = signed ? signExtend(a, size) * signExtend(factor, size) : a * factor;
  const low = cutToSize(product, size);
  writeWide(size, low, cutToSize(product >> (u64(size) << 3), size));
  const significant = signed ? product != signExtend(low, size) : product != low;
  if (size == 1) multiplyFlags<u8>(low, significant);
  else if (size == 2) multiplyFlags<u16>(low, significant);
  else multiplyFlags<u32>(low, significant);
}

/** IMUL with two or three operands. */
export function execMultiplyLow(op: usize, factor: u64): void {
  const size = load<u8>(op, OP_SIZE);
  const value = readSource(op);
  if (fault) return;
  const destination = load<u16>(op, OP_DST);
  if (size == 2) setRegister<u16>(destination, multiply<u16>(value, cutToSize(factor, 2)));
  else if (size == 4) setRegister<u32>(destination, multiply<u32>(value, cutToSize(factor, 4)));
  else setRegister<u64>(destination, multiply<u64>(value, factor));
}

/** DIV and IDIV. All flags are undefined; processors leave them. */
export function execDivide(op: usize, signed: bool): void {
  const size = load<u8>(op, OP_SIZE);
  const divisor = readSource(op);
  if (fault) return;
  if (size == 8) {
    const fits = signed
      ? divideWideSigned(general(RDX), general(RAX), divisor)
      : divideWide(general(RDX), general(RAX), divisor);
    if (!fits) {
      divideError();
      return;
    }
    setGeneral(RAX, quotient);
    setGeneral(RDX, remainder);
    return;
  }
  if (divisor == 0) {
    divideError();
    return;
  }
  const bits = u64(size) << 3;
  const dividend =
    size == 1 ? cutToSize(general(RAX), 2) : (cutToSize(general(RDX), size) << bits) | cutToSize(general(RAX), size);
  let q: u64;
  let r: u64;
  if (signed) {
    const wide = <i64>signExtend(dividend, size << 1);
    const by = <i64>signExtend(divisor, size);
    // The one pair that i64 division itself refuses; its quotient does not fit either.
    if (by == -1 && wide == i64.MIN_VALUE) {
      divideError();
      return;
    }
    const result = wide / by;
    if (result != <i64>signExtend(cutToSize(<u64>result, size), size)) {
      divideError();
      return;
    }
    q = cutToSize(<u64>result, size);
    r = cutToSize(<u64>(wide % by), size);
  } else {
    q = dividend / divisor;
    if (q != cutToSize(q, size)) {
      divideError();
      return;
    }
    r = dividend % divisor;
  }
  if (size == 1) {
    setRegisterOfSize(VCPU_RAX, 2, (r << 8) | q);
  } else {
    setRegisterOfSize(VCPU_RAX, size, q);
    setRegisterOfSize(VCPU_RDX, size, r);
  }
}
