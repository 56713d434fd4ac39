/**
 * The benign twin of `self-map`: writes to the same page, and to the same entry, that a kernel makes every day. Each must
 * have its effect, which is checked; the first check of an entry looks through the self-map, those of the self-map entry
 * itself through another mapping of the PML4, because using the self-map sets the accessed bit again.
 */
import { SparePage } from './page-mapping.js';
import { STUB_RESULT } from './ring3-stub.js';

const ACCESSED_BIT = 5;
const ACCESSED = 1 << ACCESSED_BIT;
/** Accessed and dirty: the processor sets them whenever it likes. */
const STATUS_BITS = 0x60;
/** Present and writable, for ring 0. */
const PRESENT_WRITABLE = 3;
const USER_BIT = 2;
/** A bit of an entry that the processor ignores. */
const SOFTWARE_BIT = 9;
/** User-half entries among which the test looks for an unused one. */
const SEARCH = { first: 0x40, end: 0x100 } as const;

/** One form of write: changes the entry at RDI by `change`, an instruction on RAX. */
interface Form {
  readonly name: string;
  readonly code: (change: string, direct: string) => string;
}

const exchanged =
  (instruction: string) =>
  (change: string): string =>
    `
    mov rax, [rdi]
    ${change}
    ${instruction}
`;

const FORMS: readonly Form[] = [
  { name: 'Mov', code: exchanged('mov [rdi], rax') },
  { name: 'Direct', code: (_, direct) => direct },
  { name: 'Xchg', code: exchanged('xchg [rdi], rax') },
  {
    name: 'LockCmpxchg',
    code: (change) => `
    mov rax, [rdi]
.retry:
    mov r8, rax
    ${change}
    mov rdx, rax
    mov rax, r8
    lock cmpxchg [rdi], rdx
    je .written
    cmp rax, r8
    jne .retry
.written:
`,
  },
];

/** Counts a loss in R15 when the last comparison ended so (`e`, `ne`, `ae`). Changes RAX. */
function lostIf(condition: string): string {
  return `set${condition} al\n movzx eax, al\n add r15, rax\n`;
}

function accessedBitTests(): string {
  return FORMS.flatMap(({ name, code }) => [
    `LabAccessedClear${name}:`,
    code(`and rax, ${-1 - ACCESSED}`, name === 'Direct' ? `btr qword [rdi], ${ACCESSED_BIT}` : ''),
    `test byte [r14], ${ACCESSED}`,
    lostIf('ne'),
    `LabAccessedSet${name}:`,
    code(`or rax, ${ACCESSED}`, `or qword [rdi], ${ACCESSED}`),
    `test byte [r14], ${ACCESSED}`,
    lostIf('e'),
  ]).join('\n');
}

function sameValueTests(): string {
  return FORMS.filter(({ name }) => name !== 'Direct')
    .flatMap(({ name, code }) => [
      `LabSameValue${name}:`,
      'mov r11, [rdi]',
      code('or rax, 0', ''),
      'mov rax, [r14]',
      'xor rax, r11',
      `and rax, ${-1 - STATUS_BITS}`,
      lostIf('ne'),
    ])
    .join('\n');
}

/** RDI = unused entry, RBP = value that links the alias tables. Each form sets the value, then it is cleared again. */
function otherEntryTests(): string {
  return FORMS.flatMap(({ name, code }) => [
    `LabOtherEntry${name}:`,
    code('or rax, rbp', 'or [rdi], rbp'),
    'cmp [rdi], rbp',
    lostIf('ne'),
    `bts qword [rdi], ${SOFTWARE_BIT}`,
    `bt qword [rdi], ${SOFTWARE_BIT}`,
    lostIf('ae'),
    'mov qword [rdi], 0',
    'cmp qword [rdi], 0',
    lostIf('ne'),
  ]).join('\n');
}

/** Byte offset of an alias table in the spare memory: 0 PDPT, 1 PD, 2 PT. */
function alias(level: number): number {
  return (SparePage.ALIAS + level) * 0x1000;
}

/** Code of the twin. R12 = ring-3 stub, R13 = its stack. */
export function selfMapBenignCode(selfMapIndex: number): string {
  return `
LabSelfMapBenign:
    xor r15d, r15d
    mov rdi, SelfMapEntry
    ; An attack that nobody stopped may have left the entry open to ring 3; closing it is no attack.
    btr qword [rdi], ${USER_BIT}
    call LabInvalidate
    ; Three tables that map the PML4 once more, for ring 0.
    mov rsi, SpareVa
    mov rbp, SparePhysical
    lea rax, [rbp+${alias(1) + PRESENT_WRITABLE}]
    mov [rsi+${alias(0)}], rax
    lea rax, [rbp+${alias(2) + PRESENT_WRITABLE}]
    mov [rsi+${alias(1)}], rax
    mov rax, cr3
    shr rax, 12
    shl rax, 12
    or rax, ${PRESENT_WRITABLE}
    mov [rsi+${alias(2)}], rax
    add rbp, ${alias(0) + PRESENT_WRITABLE}
    ; An entry of the user half that nothing uses.
    mov rsi, PxeBase
    mov ebx, ${SEARCH.first}
.search:
    cmp qword [rsi+rbx*8], 0
    je .found
    inc ebx
    cmp ebx, ${SEARCH.end}
    jb .search
    inc r15
    jmp LabBenignReport
.found:
    lea rdi, [rsi+rbx*8]
    ${otherEntryTests()}
LabBenignAlias:
    ; The entry in use: through it the PML4 appears at another address. Ring 3 may pass the entry, but no level below.
    mov [rdi], rbp
    bts qword [rdi], ${USER_BIT}
    lea rax, [rbp+${1 << USER_BIT}]
    cmp rax, [rdi]
    ${lostIf('ne')}
    test byte [rdi], 1
    je LabBenignReport
    mov rsi, rdi
    mov r14, rbx
    shl r14, 39
    add r14, ${selfMapIndex * 8}
    mov rdi, SelfMapEntry
    ${accessedBitTests()}
    ${sameValueTests()}
LabBenignStub:
    ; Ring 3 runs and has nothing to do with page tables.
    mov rcx, r12
    mov rdx, r13
    xor r8d, r8d
    xor r9d, r9d
    call KiCallUserModeEntry
    cmp rax, ${STUB_RESULT}
    ${lostIf('ne')}
    mov qword [rsi], 0
    invlpg [r14]
    cmp qword [rsi], 0
    ${lostIf('ne')}
LabBenignReport:
    mov rdi, SelfMapEntry
    call LabInvalidate
    lea rcx, [TextBenignOk]
    test r15, r15
    je DbgPrintLine
    lea rcx, [TextBenignLost]
    mov rdx, r15
    jmp DbgPrintValue
`;
}
