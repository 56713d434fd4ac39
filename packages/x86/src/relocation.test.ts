import { describe, expect, it } from 'vitest';
import { type Bitness, decodeInstruction, relocateInstructions } from './index.js';
import { instructionText } from './instruction-text.js';

const FROM = 0xffff_8000_0001_0000n;
const TO = 0xffff_8000_0002_3456n;

const code = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
const move = (hex: string, bitness: Bitness = 64, to = TO, from = FROM, atLeast = 5): string => {
  const result = relocateInstructions(code(hex), from, to, atLeast, bitness);
  return typeof result === 'string' ? result : Buffer.from(result.bytes).toString('hex');
};
/** The instruction in words, with the address that it refers to. */
const text = (hex: string, at: bigint, bitness: Bitness = 64): string => instructionText(code(hex), at, bitness);

describe('moving instructions', () => {
  it('keeps the target of all 16 near conditional branches, of CALL and of JMP', () => {
    for (const opcode of [
      ...Array.from({ length: 16 }, (_, condition) => `0f ${(0x80 + condition).toString(16)}`),
      'e8',
      'e9',
    ]) {
      const original = `${opcode} 11 22 33 00`;
      expect(text(move(original), TO)).toBe(text(original, FROM));
      expect(move(original)).not.toBe(original.replaceAll(' ', ''));
    }
  });

  it('keeps the address of RIP-relative operands of any instruction, with prefixes and with an immediate behind', () => {
    for (const original of [
      '48 8b 05 11 22 33 00',
      '48 8d 0d 11 22 33 00',
      '66 89 05 11 22 33 00',
      'f0 48 ff 05 11 22 33 00',
      '80 3d 11 22 33 00 7f',
      '48 c7 05 11 22 33 00 78 56 34 12',
      '48 63 05 11 22 33 00',
      '66 0f 6f 05 11 22 33 00',
      'ff 25 11 22 33 00',
      'ff 15 11 22 33 00',
    ]) {
      expect(text(move(original), TO), original).toBe(text(original, FROM));
    }
  });

  it('copies what refers to nothing, whole instructions only, and each at its offset', () => {
    expect(move('48 89 5c 24 08 57 90')).toBe('48895c2408');
    expect(move('57 48 83 ec 20 90')).toBe('574883ec20');
    expect(move('40 53 48 83 ec 20 90')).toBe('40534883ec20');
    // push rbx; mov rax, [rip+...]
    expect(move('53 48 8b 05 00 00 00 00 90').length).toBe(16);
    expect(decodeInstruction(code(move('53 48 8b 05 00 00 00 00 90')).subarray(1), TO + 1n)).toMatchObject({
      length: 7,
    });
  });

  it('keeps branch targets of 32-bit code across the whole address space', () => {
    const original = 'e8 11 22 33 00';
    expect(text(move(original, 32, 0x8000_1000n, 0xf000_0000n), 0x8000_1000n, 32)).toBe(
      text(original, 0xf000_0000n, 32),
    );
    expect(move('55 8b ec 83 ec 10', 32)).toBe('558bec83ec10');
  });

  it('refuses what cannot be moved, and says why', () => {
    expect(move('eb 10 90 90 90')).toBe('short-branch');
    expect(move('90 90 90 74 10 90')).toBe('short-branch');
    expect(move('e2 fe 90 90 90')).toBe('short-branch');
    expect(move('e3 10 90 90 90')).toBe('short-branch');
    expect(move('66 e9 10 00 90', 32)).toBe('short-branch');
    expect(move('48 8b 05 00 00 00 00', 64, FROM + 0x1_0000_0000n)).toBe('out-of-range');
    expect(move('e8 00 00 00 00', 64, FROM - 0x1_0000_0000n)).toBe('out-of-range');
    // call itself, which is moved too
    expect(move('90 e8 fb ff ff ff')).toBe('branch-inside');
    // The last instruction may leave, and so may a branch to the end: nothing behind it is moved.
    expect(move('33 c0 c3 cc cc')).toBe('ends-early');
    expect(move('33 c0 33 c9 c3 90')).toBe('33c033c9c3');
    expect(text(move('e8 00 00 00 00'), TO)).toBe(text('e8 00 00 00 00', FROM));
    expect(text(move('e8 fb ff ff ff'), TO)).toBe(text('e8 fb ff ff ff', FROM));
    expect(move('48 89 5c')).toBe('incomplete');
    expect(move('06 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90')).toBe('invalid');
  });
});
