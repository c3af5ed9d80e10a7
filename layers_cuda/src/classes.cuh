// Kernels along one axis of outer x K x inner: each position (outer, inner) is one group of LANES threads.
#include "lanes.cuh"

// The element of class 0 at a position; class k is k * inner further on.
__device__ inline I base_of(I position, I k, I inner) {
  const I o = quotient(position, inner);
  return o * k * inner + (position - o * inner);
}

// What was found out of range: the least (position << 32 | bits of the value as float32), and how many.
struct Fault {
  unsigned long long first, count;
};
__device__ inline void report(Fault *fault, long long position, float value) {
  atomicMin(&fault->first, (unsigned long long)position << 32 | __float_as_uint(value));
  atomicAdd(&fault->count, 1ull);
}
