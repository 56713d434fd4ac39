// Runs one instruction (or a straight line of them) natively, in user mode, with every register given: the reference
// that the differential test compares hv-sim with. Test-only, never loaded by the package itself.
//
// The code under test lies in pages that are filled with INT3, so whatever it does ends in a signal: at the INT3 behind
// it (or at a branch target), or at its own fault. The handler runs on an alternate stack, takes the registers out of
// the signal frame, and sends the thread back to `host_cpu_return` on the host's stack. RSP therefore belongs to the test.
// A mistake here kills the process; the harness keeps this addon in a child process for that reason.

#include <napi.h>

#if !defined(__x86_64__) || !defined(__linux__)
#error "the native reference of the differential test exists for Linux on x86-64 only"
#endif

#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace {

// In and out of one run, as test/differential/host-runner.mjs lays it out in a BigUint64Array.
struct Context {
  uint64_t gpr[16];  // in the order of their encoding: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8..r15
  uint64_t rip;
  uint64_t rflags;
  uint64_t xmm[32];  // low half, high half of xmm0, then xmm1, ...
  uint64_t vector;   // out: the exception that ended the run (3 for the INT3 behind the code)
  uint64_t error;    // out: its error code as the kernel reports it
  uint64_t cr2;      // out: the address of a page fault
};
constexpr size_t kContextWords = sizeof(Context) / sizeof(uint64_t);
static_assert(kContextWords == 53, "host-runner.mjs knows this layout");

constexpr int kSignals[] = {SIGILL, SIGSEGV, SIGFPE, SIGTRAP, SIGBUS};
constexpr size_t kAlternateStack = 64 * 1024;

// 32-bit code runs in the segment that the kernel keeps for it, with flat data segments.
constexpr uint16_t kUserCode = 0x33;
constexpr uint16_t kUserCode32 = 0x23;
constexpr uint16_t kUserData = 0x2b;

Context* current = nullptr;

}  // namespace

extern "C" {
__attribute__((visibility("hidden"))) uint64_t host_cpu_saved_rsp = 0;
__attribute__((visibility("hidden"))) uint64_t host_cpu_target = 0;
// x87 and MXCSR state of every case: as after FNINIT, all registers empty and 0.
__attribute__((visibility("hidden"), aligned(16))) uint32_t host_cpu_initial[128] = {0x37f, 0, 0, 0, 0, 0, 0x1f80};
// Where host_cpu_enter_far goes: offset and selector, as a far jump takes them.
__attribute__((visibility("hidden"))) struct {
  uint32_t offset;
  uint16_t selector;
} __attribute__((packed)) host_cpu_far_target = {0, 0};
void host_cpu_enter(Context* context);
void host_cpu_enter_far();
void host_cpu_return();
}

// The offsets are those of Context: gpr at 0, rflags at 136, xmm at 144.
asm(R"(
.text
.hidden host_cpu_enter
.hidden host_cpu_return
.globl host_cpu_enter
.type host_cpu_enter, @function
host_cpu_enter:
  pushq %rbx
  pushq %rbp
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  subq $8, %rsp
  stmxcsr (%rsp)
  fnstcw 4(%rsp)
  movq %rsp, host_cpu_saved_rsp(%rip)
  fxrstor host_cpu_initial(%rip)
  movdqu 144(%rdi), %xmm0
  movdqu 160(%rdi), %xmm1
  movdqu 176(%rdi), %xmm2
  movdqu 192(%rdi), %xmm3
  movdqu 208(%rdi), %xmm4
  movdqu 224(%rdi), %xmm5
  movdqu 240(%rdi), %xmm6
  movdqu 256(%rdi), %xmm7
  movdqu 272(%rdi), %xmm8
  movdqu 288(%rdi), %xmm9
  movdqu 304(%rdi), %xmm10
  movdqu 320(%rdi), %xmm11
  movdqu 336(%rdi), %xmm12
  movdqu 352(%rdi), %xmm13
  movdqu 368(%rdi), %xmm14
  movdqu 384(%rdi), %xmm15
  pushq 136(%rdi)
  popfq
  movq 0(%rdi), %rax
  movq 8(%rdi), %rcx
  movq 16(%rdi), %rdx
  movq 24(%rdi), %rbx
  movq 32(%rdi), %rsp
  movq 40(%rdi), %rbp
  movq 48(%rdi), %rsi
  movq 64(%rdi), %r8
  movq 72(%rdi), %r9
  movq 80(%rdi), %r10
  movq 88(%rdi), %r11
  movq 96(%rdi), %r12
  movq 104(%rdi), %r13
  movq 112(%rdi), %r14
  movq 120(%rdi), %r15
  movq 56(%rdi), %rdi
  jmpq *host_cpu_target(%rip)
.size host_cpu_enter, .-host_cpu_enter
.hidden host_cpu_enter_far
.globl host_cpu_enter_far
.type host_cpu_enter_far, @function
host_cpu_enter_far:
  ljmpl *host_cpu_far_target(%rip)
.size host_cpu_enter_far, .-host_cpu_enter_far
.globl host_cpu_return
.type host_cpu_return, @function
host_cpu_return:
  fninit
  ldmxcsr (%rsp)
  fldcw 4(%rsp)
  addq $8, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbp
  popq %rbx
  ret
.size host_cpu_return, .-host_cpu_return
)");

namespace {

void onSignal(int signal, siginfo_t*, void* frame) {
  auto* user = static_cast<ucontext_t*>(frame);
  greg_t* registers = user->uc_mcontext.gregs;
  Context* context = current;
  if (context == nullptr) {
    // Not ours: let the default action happen when the instruction faults again.
    struct sigaction action = {};
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, nullptr);
    return;
  }
  current = nullptr;
  static constexpr int kOrder[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                     REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  for (int i = 0; i < 16; i++) context->gpr[i] = static_cast<uint64_t>(registers[kOrder[i]]);
  context->rip = static_cast<uint64_t>(registers[REG_RIP]);
  context->rflags = static_cast<uint64_t>(registers[REG_EFL]);
  context->vector = static_cast<uint64_t>(registers[REG_TRAPNO]);
  context->error = static_cast<uint64_t>(registers[REG_ERR]);
  context->cr2 = static_cast<uint64_t>(registers[REG_CR2]);
  memcpy(context->xmm, user->uc_mcontext.fpregs->_xmm, sizeof context->xmm);
  registers[REG_RSP] = static_cast<greg_t>(host_cpu_saved_rsp);
  registers[REG_RIP] = reinterpret_cast<greg_t>(&host_cpu_return);
  registers[REG_EFL] = 0x202;
  // CS, GS, FS and SS: back to 64-bit code wherever the signal came from.
  const uint64_t others = static_cast<uint64_t>(registers[REG_CSGSFS]) & 0x0000'ffff'ffff'0000;
  registers[REG_CSGSFS] = static_cast<greg_t>(others | kUserCode | static_cast<uint64_t>(kUserData) << 48);
}

Napi::Error systemError(Napi::Env env, const std::string& what) {
  return Napi::Error::New(env, what + ": " + strerror(errno));
}

// mapPages(address, size, protection: PROT_* bits): ArrayBuffer over the new pages
Napi::Value MapPages(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto address = static_cast<uintptr_t>(info[0].As<Napi::Number>().Int64Value());
  const auto size = static_cast<size_t>(info[1].As<Napi::Number>().Int64Value());
  const int protection = info[2].As<Napi::Number>().Int32Value();
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | (protection == 0 ? 0 : MAP_POPULATE);
  void* pages = mmap(reinterpret_cast<void*>(address), size, protection, flags, -1, 0);
  if (pages == MAP_FAILED) throw systemError(env, "mmap");
  if (pages != reinterpret_cast<void*>(address)) {
    // A kernel before 4.17 takes the address as a hint.
    munmap(pages, size);
    throw Napi::Error::New(env, "mmap: the kernel gave another address");
  }
  return Napi::ArrayBuffer::New(env, pages, size);
}

// protectPages(address, size, protection)
void ProtectPages(const Napi::CallbackInfo& info) {
  const auto address = static_cast<uintptr_t>(info[0].As<Napi::Number>().Int64Value());
  const auto size = static_cast<size_t>(info[1].As<Napi::Number>().Int64Value());
  if (mprotect(reinterpret_cast<void*>(address), size, info[2].As<Napi::Number>().Int32Value()) != 0) {
    throw systemError(info.Env(), "mprotect");
  }
}

// setGsBase(address): user space on x86-64 Linux leaves GS free
void SetGsBase(const Napi::CallbackInfo& info) {
  const auto base = static_cast<unsigned long>(info[0].As<Napi::Number>().Int64Value());
  if (syscall(SYS_arch_prctl, ARCH_SET_GS, base) != 0) throw systemError(info.Env(), "arch_prctl");
}

// cpuid(leaf, subleaf): [eax, ebx, ecx, edx]
Napi::Value Cpuid(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  uint32_t words[4] = {0, 0, 0, 0};
  __get_cpuid_count(info[0].As<Napi::Number>().Uint32Value(), info[1].As<Napi::Number>().Uint32Value(), &words[0],
                    &words[1], &words[2], &words[3]);
  Napi::Array result = Napi::Array::New(env, 4);
  for (uint32_t i = 0; i < 4; i++) result.Set(i, Napi::Number::New(env, words[i]));
  return result;
}

// selectors(): [es, cs, ss, ds, fs, gs] of this process
Napi::Value Selectors(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  uint16_t values[6];
  asm volatile("movw %%es, %0" : "=m"(values[0]));
  asm volatile("movw %%cs, %0" : "=m"(values[1]));
  asm volatile("movw %%ss, %0" : "=m"(values[2]));
  asm volatile("movw %%ds, %0" : "=m"(values[3]));
  asm volatile("movw %%fs, %0" : "=m"(values[4]));
  asm volatile("movw %%gs, %0" : "=m"(values[5]));
  Napi::Array result = Napi::Array::New(env, 6);
  for (uint32_t i = 0; i < 6; i++) result.Set(i, Napi::Number::New(env, values[i]));
  return result;
}

void setDataSegments(uint16_t selector) {
  asm volatile("movw %0, %%ds\n\tmovw %0, %%es" : : "r"(selector));
}

// run(context: BigUint64Array(53), bitness: 32 or 64): runs from its RIP until an exception, and writes the outcome into it
void Run(const Napi::CallbackInfo& info) {
  auto words = info[0].As<Napi::BigUint64Array>();
  if (words.ElementLength() != kContextWords) throw Napi::RangeError::New(info.Env(), "the context has 53 words");
  auto* context = reinterpret_cast<Context*>(words.Data());
  const bool compatibility = info[1].As<Napi::Number>().Int32Value() == 32;
  host_cpu_target = compatibility ? reinterpret_cast<uint64_t>(&host_cpu_enter_far) : context->rip;
  host_cpu_far_target = {static_cast<uint32_t>(context->rip), kUserCode32};
  if (compatibility) setDataSegments(kUserData);
  current = context;
  host_cpu_enter(context);
  setDataSegments(0);
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  static uint8_t alternate[kAlternateStack] __attribute__((aligned(64)));
  stack_t stack = {};
  stack.ss_sp = alternate;
  stack.ss_size = sizeof alternate;
  if (sigaltstack(&stack, nullptr) != 0) throw systemError(env, "sigaltstack");
  struct sigaction action = {};
  action.sa_sigaction = onSignal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int signal : kSignals) {
    if (sigaction(signal, &action, nullptr) != 0) throw systemError(env, "sigaction");
  }
  exports.Set("mapPages", Napi::Function::New(env, MapPages));
  exports.Set("protectPages", Napi::Function::New(env, ProtectPages));
  exports.Set("setGsBase", Napi::Function::New(env, SetGsBase));
  exports.Set("cpuid", Napi::Function::New(env, Cpuid));
  exports.Set("selectors", Napi::Function::New(env, Selectors));
  exports.Set("run", Napi::Function::New(env, Run));
  return exports;
}

}  // namespace

NODE_API_MODULE(host_cpu, Init)
