// Runs CUDA C++ kernels on the CPU, one block at a time. The threads of a block are fibers: a thread that waits at a
// barrier gives way to the next. Kernels that never wait cost one loop. With CUDA_CPU_SHUFFLE=1 in the environment a
// warp chosen at random runs as far ahead as it can, then another: this shows a missing __syncthreads().
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
#define __shared__ static
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
  __nv_bfloat16(float v) { uint32_t u; memcpy(&u, &v, 4); bits = (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16); }
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
inline int waits[MOST];
inline uint64_t words[MOST];

struct Fiber { ucontext_t context; char* stack; int thread; };
inline Fiber fibers[MOST];
inline ucontext_t scheduler;
inline Fiber* running;
inline uint64_t seed = 1;
inline void (*body)(void*) = nullptr;
inline void* argument = nullptr;

inline void become(int i) { current = i; tid = {i % bdim.x, i / bdim.x % bdim.y, i / (bdim.x * bdim.y)}; }
inline void give_way() {
  Fiber* me = running;
  int thread = current;
  swapcontext(&me->context, &scheduler);
  running = me;
  become(thread);
}
// Every live thread of [low, high) must come as often as this one has.
inline void barrier(int low, int high) {
  int wanted = ++waits[current];
  for (;;) {
    bool all = true;
    for (int i = low; i < high && all; ++i) all = done[i] || waits[i] >= wanted;
    if (all) return;
    give_way();
  }
}
inline void warp(int& low, int& high) { low = current / 32 * 32; high = std::min(low + 32, threads); }
template <class T> T shuffle(T value, int lane, int width) {
  static_assert(sizeof(T) <= 8);
  int low, high;
  warp(low, high);
  words[current] = 0;
  memcpy(&words[current], &value, sizeof(T));
  barrier(low, high);
  int mine = current - low, first = mine / width * width, from = low + lane;
  T result = value;
  if (lane >= first && lane < first + width && from < high) memcpy(&result, &words[from], sizeof(T));
  barrier(low, high);
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
inline void resume(Fiber& f) { running = &f; become(f.thread); swapcontext(&scheduler, &f.context); }
inline void in_order() {
  int used = 0;
  next = 0;
  while (next < threads) {  // those that wait are looked at again when all have started
    start(fibers[used], next++);
    resume(fibers[used]);
    used += fibers[used].thread >= 0;
  }
  for (int live = used; live;) {
    live = 0;
    for (int i = 0; i < used; ++i)
      if (fibers[i].thread >= 0) { resume(fibers[i]); live += fibers[i].thread >= 0; }
  }
}
inline void shuffled() {
  next = threads;  // every thread has a fiber of its own
  for (int i = 0; i < threads; ++i) start(fibers[i], i);
  int chosen = -1;
  bool moved = false;
  for (int live = threads; live;) {
    live = 0;
    if (!moved) {
      seed = seed * 6364136223846793005ull + 1442695040888963407ull;
      chosen = (int)(seed >> 33) % ((threads + 31) / 32);
    }
    moved = false;
    for (int i = 0; i < threads; ++i) {
      if (done[i]) continue;
      if (i / 32 != chosen) { ++live; continue; }
      int before = waits[i];
      resume(fibers[i]);
      live += !done[i];
      moved |= done[i] || waits[i] != before;
    }
  }
}
template <class... A, size_t... I>
void launch(void (*kernel)(A...), dim3 grid, dim3 block, size_t shared, void** given, std::index_sequence<I...>) {
  static const bool shuffle = getenv("CUDA_CPU_SHUFFLE") != nullptr;
  gdim = grid;
  bdim = block;
  threads = block.x * block.y * block.z;
  std::vector<char> memory(shared + 16);
  dynamic = (char*)(((uintptr_t)memory.data() + 15) / 16 * 16);
  struct Pack { void (*kernel)(A...); void** given; } pack{kernel, given};
  argument = &pack;
  body = [](void* p) { auto* k = (Pack*)p; k->kernel(*(std::decay_t<A>*)k->given[I]...); };
  for (bid.z = 0; bid.z < grid.z; ++bid.z)
    for (bid.y = 0; bid.y < grid.y; ++bid.y)
      for (bid.x = 0; bid.x < grid.x; ++bid.x) {
        std::fill(done, done + threads, false);
        std::fill(waits, waits + threads, 0);
        std::fill(memory.begin(), memory.end(), (char)0xff);  // NaN: shared memory starts undefined
        shuffle ? shuffled() : in_order();
      }
}
}  // namespace cpu

#define threadIdx cpu::tid
#define blockIdx cpu::bid
#define blockDim cpu::bdim
#define gridDim cpu::gdim
#define warpSize 32

inline void __syncthreads() { cpu::barrier(0, cpu::threads); }
inline void __syncwarp(unsigned = ~0u) { int low, high; cpu::warp(low, high); cpu::barrier(low, high); }
inline void __threadfence() {}
template <class T> T __shfl_sync(unsigned, T v, int lane, int w = 32) { return cpu::shuffle(v, cpu::current % 32 / w * w + lane % w, w); }
template <class T> T __shfl_down_sync(unsigned, T v, unsigned d, int w = 32) { return cpu::shuffle(v, cpu::current % 32 + (int)d, w); }
template <class T> T __shfl_up_sync(unsigned, T v, unsigned d, int w = 32) { return cpu::shuffle(v, cpu::current % 32 - (int)d, w); }
template <class T> T __shfl_xor_sync(unsigned, T v, int m, int w = 32) { return cpu::shuffle(v, cpu::current % 32 ^ m, w); }
inline unsigned __ballot_sync(unsigned, int test) {
  unsigned all = 0;
  for (int lane = 0; lane < 32; ++lane) {
    int low, high;
    cpu::warp(low, high);
    int bit = cpu::shuffle(test != 0, lane, 32);
    if (low + lane < high) all |= (unsigned)bit << lane;
  }
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
inline int __float_as_int(float x) { int v; memcpy(&v, &x, 4); return v; }
inline float __int_as_float(int x) { float v; memcpy(&v, &x, 4); return v; }
using std::max;
using std::min;
using std::isfinite;
using std::isinf;
using std::isnan;

// fakecupy.py adds one for each kernel: a C function with the sizes and the addresses of the arguments.
#define KERNEL_EXPORT(name)                                                                                             \
  extern "C" void launch_##name(unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,           \
                                size_t shared, void** given) {                                                          \
    auto go = [=]<class... A>(void (*kernel)(A...)) {                                                                   \
      cpu::launch(kernel, dim3{gx, gy, gz}, dim3{bx, by, bz}, shared, given, std::index_sequence_for<A...>{});          \
    };                                                                                                                  \
    go(&name);                                                                                                          \
  }
