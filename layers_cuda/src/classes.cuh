// Kernels along one axis of outer x K x inner: each position (outer, inner) is one group of LANES threads.
#include "lanes.cuh"

// The element of class 0 at a position; class k is k * inner further on.
__device__ inline I base_of(I position, I k, I inner) {
  const I o = quotient(position, inner);
  return o * k * inner + (position - o * inner);
}

// Softmax over the classes of one position, by the lanes of a group.
struct Softmax {
  R highest, sum;
  __device__ R operator()(R value) const { return exp(value - highest) / sum; }
};
// x: the element of class 0, the next one is `step` further on. All threads of the block must call it; those that have
// no position (mine is false) read nothing. shared holds THREADS elements.
template <class E>
__device__ inline Softmax softmax_over(const E *x, I k, I step, bool mine, R *shared) {
  R highest = -infinity();
  if (mine) {
    for (I c = lane(); c < k; c += LANES) highest = Max()(highest, to<R>(x[c * step]));
  }
  highest = across_lanes(highest, shared, Max());
  R sum = 0;
  if (mine) {
    for (I c = lane(); c < k; c += LANES) sum += exp(to<R>(x[c * step]) - highest);
  }
  return {highest, across_lanes(sum, shared, Sum())};
}

// What was found out of range: the least (position << 32 | bits of the value as float32), and how many.
struct Fault {
  unsigned long long first, count;
};
__device__ inline void report(Fault *fault, long long position, float value) {
  atomicMin(&fault->first, (unsigned long long)position << 32 | __float_as_uint(value));
  atomicAdd(&fault->count, 1ull);
}
