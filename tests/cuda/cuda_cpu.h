// Runs CUDA C++ kernels on the CPU, one block at a time. The threads of a block are fibers: a thread that waits at a
// barrier gives way to the next. Kernels that never wait cost one loop.
//
// With CUDA_CPU_SHUFFLE=<number> in the environment (read at each launch) everything that CUDA leaves open is drawn at
// random from that number: the order of the blocks, which warp runs ahead of the others and how far, the order of the
// threads of a warp. A missing __syncthreads() then gives wrong results.
//
// Shared memory holds NaN when a block starts. A launch gives back what is wrong with it, as text: threads at different
// barriers, threads that have left before a barrier of the block, threads that wait for ever.
// Not covered: the memory model, half types, speed.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define CUDA_CPU 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
// All of a kernel's shared variables lie in one section, so that they can be filled before each block. (Variables of
// templates cannot: declare shared memory in the kernel.)
#define __shared__ static __attribute__((section("cuda_shared")))
extern "C" char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));
#define __constant__ static
#define __restrict__
#define DYN_SHARED(T, name) T* name = (T*)cpu::dynamic

struct dim3 { unsigned x, y, z; };
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
struct int2 { int x, y; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct __nv_bfloat16 {  // rounds to nearest even
  uint16_t bits;
  __nv_bfloat16() = default;
  __nv_bfloat16(float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    bits = v != v ? 0x7fc0 : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
  }
  operator float() const { uint32_t u = (uint32_t)bits << 16; float v; memcpy(&v, &u, 4); return v; }
};
struct __half {  // likewise; what is too large becomes infinite
  uint16_t bits;
  __half() = default;
  __half(float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    float a = std::fabs(v);
    if (v != v) bits = 0x7e00;
    else if (a >= 65520.0f) bits = sign | 0x7c00;
    else if (a < 6.103515625e-05f) bits = sign | (uint16_t)std::nearbyint(a * 16777216.0f);
    else { memcpy(&u, &a, 4); u += 0xfff + (u >> 13 & 1); bits = sign | (uint16_t)((u >> 13) - (112 << 10)); }
  }
  operator float() const {
    uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023;
    float a = exponent == 31 ? (fraction ? NAN : INFINITY) : exponent ? std::ldexp(1024.0f + fraction, (int)exponent - 25)
                                                                      : std::ldexp((float)fraction, -24);
    return bits & 0x8000 ? -a : a;
  }
};

namespace cpu {
constexpr int MOST = 1024;
constexpr size_t STACK = 64 * 1024;
inline char* dynamic = nullptr;
inline dim3 tid, bid, bdim, gdim;
inline int threads, current, next;
inline bool done[MOST];
struct Waits { int block, warp, line; };
inline Waits waits[MOST];
inline uint64_t words[MOST];
inline const char* wrong = nullptr;

struct Fiber { ucontext_t context; char* stack; int thread; };
inline Fiber fibers[MOST];
inline ucontext_t scheduler;
inline Fiber* running;
inline uint64_t seed = 1;
inline void (*body)(void*) = nullptr;
inline void* argument = nullptr;

inline int drawn(int n) {
  seed = seed * 6364136223846793005ull + 1442695040888963407ull;
  return (int)((seed >> 33) % (uint64_t)n);
}
inline void become(int i) { current = i; tid = {i % bdim.x, i / bdim.x % bdim.y, i / (bdim.x * bdim.y)}; }
inline void give_way() {
  Fiber* me = running;
  int thread = current;
  swapcontext(&me->context, &scheduler);
  running = me;
  become(thread);
}
// Every live thread of the block must come to the barrier as often as this one has, and to the same one.
inline void block_barrier(int line) {
  int wanted = ++waits[current].block;
  waits[current].line = line;
  for (;;) {
    bool all = true;
    for (int i = 0; i < threads && all; ++i) all = done[i] || waits[i].block >= wanted;
    if (all) break;
    give_way();
  }
  for (int i = 0; i < threads; ++i) {
    if (done[i] && waits[i].block < wanted) wrong = "a thread had left the kernel before a __syncthreads() of its block";
    if (!done[i] && waits[i].block == wanted && waits[i].line != line) wrong = "threads met at different __syncthreads()";
  }
}
inline void warp(int& low, int& high) { low = current / 32 * 32; high = std::min(low + 32, threads); }
inline void warp_barrier() {
  int low, high, wanted = ++waits[current].warp;
  warp(low, high);
  for (;;) {
    bool all = true;
    for (int i = low; i < high && all; ++i) all = done[i] || waits[i].warp >= wanted;
    if (all) return;
    give_way();
  }
}
template <class T> T shuffle(T value, int lane, int width) {
  static_assert(sizeof(T) <= 8);
  int low, high;
  warp(low, high);
  words[current] = 0;
  memcpy(&words[current], &value, sizeof(T));
  warp_barrier();
  int mine = current - low, first = mine / width * width, from = low + lane;
  T result = value;
  if (lane >= first && lane < first + width && from < high) {
    if (done[from]) wrong = "a shuffle reads from a thread that has left the kernel";
    memcpy(&result, &words[from], sizeof(T));
  }
  warp_barrier();
  return result;
}
// A fiber runs one thread after another; only one that waits keeps its fiber.
inline void entry() {
  for (;;) {
    body(argument);
    done[current] = true;
    running->thread = -1;
    if (next >= threads) break;
    int i = next++;
    running->thread = i;
    become(i);
  }
  setcontext(&scheduler);
}
inline void start(Fiber& f, int thread) {
  if (!f.stack) f.stack = (char*)malloc(STACK);
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = f.stack;
  f.context.uc_stack.ss_size = STACK;
  f.context.uc_link = nullptr;
  makecontext(&f.context, (void (*)())entry, 0);
  f.thread = thread;
}
// Whether the thread got any further.
inline bool resume(Fiber& f) {
  int thread = f.thread;
  Waits before = waits[thread];
  running = &f;
  become(thread);
  swapcontext(&scheduler, &f.context);
  return done[thread] || waits[thread].block != before.block || waits[thread].warp != before.warp;
}
inline void in_order() {
  int used = 0;
  next = 0;
  while (next < threads) {  // those that wait are looked at again when all have started
    start(fibers[used], next++);
    resume(fibers[used]);
    used += fibers[used].thread >= 0;
  }
  for (bool moved = true; moved;) {
    moved = false;
    for (int i = 0; i < used; ++i) {
      if (fibers[i].thread >= 0) moved |= resume(fibers[i]);
    }
  }
}
inline void shuffled() {
  next = threads;  // every thread has a fiber of its own
  for (int i = 0; i < threads; ++i) start(fibers[i], i);
  int warps = (threads + 31) / 32, stuck = 0;
  while (stuck < warps) {
    stuck = 0;
    for (int w = drawn(warps), left = warps; left; --left, w = (w + 1) % warps) {
      bool moved = false;
      for (bool again = true; again;) {  // as far ahead as it can
        again = false;
        int low = w * 32, size = std::min(32, threads - low), turn = drawn(size), way = drawn(2) ? 1 : size - 1;
        for (int i = 0, lane = turn; i < size; ++i, lane = (lane + way) % size) {
          if (!done[low + lane]) again |= resume(fibers[low + lane]);
        }
        moved |= again;
      }
      stuck = moved ? 0 : stuck + 1;
      if (moved) break;  // another warp may be drawn
    }
  }
}
template <class... A, size_t... I>
const char* launch(void (*kernel)(A...), dim3 grid, dim3 block, size_t shared, void** given, std::index_sequence<I...>) {
  const char* shuffle = getenv("CUDA_CPU_SHUFFLE");
  gdim = grid;
  bdim = block;
  threads = block.x * block.y * block.z;
  wrong = nullptr;
  std::vector<char> memory(shared + 16);
  dynamic = (char*)(((uintptr_t)memory.data() + 15) / 16 * 16);
  struct Pack { void (*kernel)(A...); void** given; } pack{kernel, given};
  argument = &pack;
  body = [](void* p) { auto* k = (Pack*)p; k->kernel(*(std::decay_t<A>*)k->given[I]...); };
  uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z, turn = 0, step = 1;
  if (shuffle) {
    seed = strtoull(shuffle, nullptr, 10) * 2 + 1;
    turn = drawn((int)blocks);
    while (std::gcd(step = 1 + drawn((int)blocks), blocks) != 1) {}
  }
  for (uint64_t n = 0; n < blocks && !wrong; ++n, turn = (turn + step) % blocks) {
    bid = {(unsigned)(turn % grid.x), (unsigned)(turn / grid.x % grid.y), (unsigned)(turn / grid.x / grid.y)};
    std::fill(done, done + threads, false);
    std::fill(waits, waits + threads, Waits{});
    std::fill(memory.begin(), memory.end(), (char)0xff);  // NaN: shared memory starts undefined
    if (__start_cuda_shared) memset(__start_cuda_shared, 0xff, __stop_cuda_shared - __start_cuda_shared);
    shuffle ? shuffled() : in_order();
    if (!wrong && !std::all_of(done, done + threads, [](bool d) { return d; })) wrong = "threads wait for ever";
  }
  return wrong;
}
}  // namespace cpu

#define threadIdx cpu::tid
#define blockIdx cpu::bid
#define blockDim cpu::bdim
#define gridDim cpu::gdim
#define warpSize 32

#define __syncthreads() cpu::block_barrier(__LINE__)
inline void __syncwarp(unsigned = ~0u) { cpu::warp_barrier(); }
inline void __threadfence() {}
template <class T> T __shfl_sync(unsigned, T v, int lane, int w = 32) { return cpu::shuffle(v, cpu::current % 32 / w * w + lane % w, w); }
template <class T> T __shfl_down_sync(unsigned, T v, unsigned d, int w = 32) { return cpu::shuffle(v, cpu::current % 32 + (int)d, w); }
template <class T> T __shfl_up_sync(unsigned, T v, unsigned d, int w = 32) { return cpu::shuffle(v, cpu::current % 32 - (int)d, w); }
template <class T> T __shfl_xor_sync(unsigned, T v, int m, int w = 32) { return cpu::shuffle(v, cpu::current % 32 ^ m, w); }
inline unsigned __ballot_sync(unsigned, int test) {
  int low, high;
  cpu::warp(low, high);
  cpu::words[cpu::current] = test != 0;
  cpu::warp_barrier();
  unsigned all = 0;
  for (int i = low; i < high; ++i) all |= (unsigned)(!cpu::done[i] && cpu::words[i]) << (i - low);
  cpu::warp_barrier();
  return all;
}
template <class T> T atomicAdd(T* p, T v) { T old = *p; *p = old + v; return old; }
template <class T> T atomicMax(T* p, T v) { T old = *p; if (v > old) *p = v; return old; }
template <class T> T atomicMin(T* p, T v) { T old = *p; if (v < old) *p = v; return old; }
template <class T> T atomicExch(T* p, T v) { T old = *p; *p = v; return old; }
template <class T> T atomicCAS(T* p, T wanted, T v) { T old = *p; if (old == wanted) *p = v; return old; }
template <class T> T __ldg(const T* p) { return *p; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline double __longlong_as_double(long long x) { double v; memcpy(&v, &x, 8); return v; }
inline int __float_as_int(float x) { int v; memcpy(&v, &x, 4); return v; }
inline unsigned __float_as_uint(float x) { unsigned v; memcpy(&v, &x, 4); return v; }
inline float __uint_as_float(unsigned x) { float v; memcpy(&v, &x, 4); return v; }
inline float __int_as_float(int x) { float v; memcpy(&v, &x, 4); return v; }
// Overloads for float, as CUDA has them: the C library's own names are for double alone.
using std::ceil, std::cos, std::erf, std::exp, std::expm1, std::fabs, std::floor, std::log, std::log1p, std::pow, std::sin,
    std::sqrt, std::tanh, std::trunc;
using std::max;
using std::min;
using std::isfinite;
using std::isinf;
using std::isnan;

// One for each kernel: a C function with the sizes and the addresses of the arguments; it returns what went wrong.
#define KERNEL_EXPORT(name)                                                                                             \
  extern "C" const char* launch_##name(unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,    \
                                       size_t shared, void** given) {                                                   \
    auto go = [=]<class... A>(void (*kernel)(A...)) {                                                                   \
      return cpu::launch(kernel, dim3{gx, gy, gz}, dim3{bx, by, bz}, shared, given, std::index_sequence_for<A...>{});   \
    };                                                                                                                  \
    return go(&name);                                                                                                   \
  }
