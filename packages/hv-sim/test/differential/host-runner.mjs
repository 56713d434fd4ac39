/**
 * The child process of host-cpu.ts: runs cases natively and sends back what they did. A case that goes wrong may kill
 * this process, and only this one.
 */
import { createRequire } from 'node:module';

const PROT_READ = 1;
const PROT_WRITE = 2;
const PROT_EXEC = 4;
const INT3 = 0xcc;
const BREAKPOINT = 3n;
const PAGE_FAULT = 14n;
/** Words of the addon's context: 16 general registers, RIP, RFLAGS, 32 XMM halves, vector, error code, CR2. */
const CONTEXT = 53;
const RIP = 16;
const RFLAGS = 17;
const XMM = 18;
const VECTOR = 50;
const ERROR = 51;
const CR2 = 52;

const addon = createRequire(import.meta.url)(process.argv[2]);
const context = new BigUint64Array(CONTEXT);
let layout;
let code;
let memory;
let baseline;

function open(message) {
  layout = message.layout;
  const { windowStart, windowEnd } = layout;
  // The whole window belongs to the test, so nothing else can appear at an address that should fault.
  const window = addon.mapPages(windowStart, windowEnd - windowStart, 0);
  addon.protectPages(layout.code, layout.codeSize, PROT_READ | PROT_WRITE | PROT_EXEC);
  addon.protectPages(layout.data, layout.dataSize + layout.readOnlySize, PROT_READ | PROT_WRITE);
  code = new Uint8Array(window, layout.code - windowStart, layout.codeSize);
  memory = new Uint8Array(window, layout.data - windowStart, layout.dataSize + layout.readOnlySize);
  baseline = message.memory;
  code.fill(INT3);
  memory.set(baseline);
  addon.protectPages(layout.readOnly, layout.readOnlySize, PROT_READ);
  addon.setGsBase(layout.gsBase);
  return { selectors: addon.selectors(), cpuid: message.leaves.map(([leaf, subleaf]) => addon.cpuid(leaf, subleaf)) };
}

function run({ rip, bitness, code: bytes, gpr, rflags, xmm, patches }) {
  const at = rip - layout.code;
  code.set(bytes, at);
  for (const { offset, bytes: patch } of patches) memory.set(patch, offset);
  context.set(gpr, 0);
  context[RIP] = BigInt(rip);
  context[RFLAGS] = BigInt(rflags);
  context.set(xmm, XMM);
  context[VECTOR] = 0n;
  addon.run(context, bitness);
  code.fill(INT3, at, at + bytes.length);
  const outcome = {
    vector: Number(context[VECTOR]),
    error: Number(context[ERROR]),
    cr2: context[CR2],
    rip: context[RIP],
    gpr: context.slice(0, 16),
    rflags: Number(context[RFLAGS]),
    xmm: context.slice(XMM, XMM + 32),
    memory: changedBytes(patches),
  };
  if (context[VECTOR] === BREAKPOINT) {
    outcome.vector = undefined;
    outcome.rip -= 1n;
  }
  if (context[VECTOR] !== PAGE_FAULT) outcome.cr2 = 0n;
  return outcome;
}

/** What a case wrote, as the whole written area before and after; puts the baseline back. */
function changedBytes(patches) {
  const writable = memory.subarray(0, layout.dataSize);
  const original = baseline.subarray(0, layout.dataSize);
  if (patches.length === 0 && Buffer.compare(writable, original) === 0) return undefined;
  const after = writable.slice();
  writable.set(original);
  return after;
}

process.on('message', (message) => {
  process.send(message.kind === 'open' ? open(message) : message.cases.map(run));
});
