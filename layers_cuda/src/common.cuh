// What every kernel file shares: the types, loops over elements, conversions.
//
// REAL     what is computed in: float (default) or double
// STORAGE  what tensors hold: REAL (default), __half, __nv_bfloat16 (with HALF defined)
// INDEX    positions and counts: int (default), long long where a count may pass 2^30

#ifndef REAL
#define REAL float
#endif
#ifndef STORAGE
#define STORAGE REAL
#endif
#ifndef INDEX
#define INDEX int
#endif
#if defined(HALF) && !defined(CUDA_CPU)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

typedef REAL R;
typedef STORAGE T;
typedef INDEX I;

// A grid-stride loop: any grid gives the same result.
#define EACH(i, count) \
  for (I i = (I)blockIdx.x * (I)blockDim.x + (I)threadIdx.x; i < (count); i += (I)gridDim.x * (I)blockDim.x)

// a / b for a >= 0 and b > 0: the unsigned division is the shorter one.
__device__ inline int quotient(int a, int b) { return (int)((unsigned)a / (unsigned)b); }
__device__ inline long long quotient(long long a, long long b) {
  return (long long)((unsigned long long)a / (unsigned long long)b);
}

template <class To, class From>
__device__ inline To to(From value) {
  return (To)value;
}

// Infinity and the ends of the range, for REAL.
__device__ inline R infinity() { return (R)__longlong_as_double(0x7ff0000000000000ll); }
__device__ inline float largest(float) { return 3.402823466385288598e+38f; }
__device__ inline double largest(double) { return 1.797693134862315708e+308; }
__device__ inline float smallest_normal(float) { return 1.175494350822287508e-38f; }
__device__ inline double smallest_normal(double) { return 2.225073858507201383e-308; }
#ifdef HALF
__device__ inline float largest(__half) { return 65504.0f; }
__device__ inline float largest(__nv_bfloat16) { return 3.38953138925153547590e+38f; }
#endif

// Labels and indices: truncated towards zero; what is no number becomes a huge negative one.
template <class L>
__device__ inline long long whole(L value) {
  return (long long)value;
}
__device__ inline long long whole(float value) { return value == value ? (long long)value : -0x7fffffffffffffffll - 1; }
__device__ inline long long whole(double value) { return value == value ? (long long)value : -0x7fffffffffffffffll - 1; }

// N neighbouring elements, moved in pieces of 16 bytes where they fill as much.
template <class E, int N>
struct alignas(sizeof(E) * N < 16 ? sizeof(E) * N : 16) Pack {
  E v[N];
};

// WIDE: N elements from p on; otherwise N times the one at p.
template <int N, bool WIDE, class E>
__device__ inline Pack<E, N> load(const E* p) {
  if constexpr (WIDE) {
    return *reinterpret_cast<const Pack<E, N>*>(p);
  } else {
    Pack<E, N> all;
    const E one = *p;
#pragma unroll
    for (int v = 0; v < N; ++v) all.v[v] = one;
    return all;
  }
}
template <int N, class E>
__device__ inline void store(E* p, const Pack<E, N>& values) {
  *reinterpret_cast<Pack<E, N>*>(p) = values;
}
