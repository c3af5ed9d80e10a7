// A block of 256 threads as groups of LANES threads that share one result each.
//
// COLUMNS = 0: the lanes of a group are neighbours (LANES a multiple of 32): what is walked over lies side by side.
// COLUMNS = 1: neighbours are groups (any power of two): the results lie side by side.

constexpr int THREADS = 256;
constexpr int GROUPS = THREADS / LANES;

__device__ inline int lane() { return COLUMNS ? threadIdx.x / GROUPS : threadIdx.x % LANES; }
__device__ inline int group() { return COLUMNS ? threadIdx.x % GROUPS : threadIdx.x / LANES; }

struct Pair {
  R a, b;
};

template <class E>
__device__ inline E from_lane_above(E value, int distance) {
  return __shfl_down_sync(0xffffffffu, value, distance);
}
__device__ inline Pair from_lane_above(Pair value, int distance) {
  return {from_lane_above(value.a, distance), from_lane_above(value.b, distance)};
}

// The merged values of a group, the same bits on each of its threads. The order of merging is fixed. All threads of the
// block must call it; shared holds THREADS elements.
template <class A, class M>
__device__ inline A across_lanes(A value, A* shared, M merge) {
  if (LANES == 1) return value;
  int first, step, count;
  if (COLUMNS) {
    shared[threadIdx.x] = value;
    first = group(), step = GROUPS, count = LANES;
  } else {
#pragma unroll
    for (int distance = 16; distance; distance >>= 1) value = merge(value, from_lane_above(value, distance));
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    first = group() * (LANES / 32), step = 1, count = LANES / 32;
  }
  __syncthreads();
  A all = shared[first];
  for (int i = 1; i < count; ++i) all = merge(all, shared[first + i * step]);
  __syncthreads();
  return all;
}

// The value merged over a warp, on its first lane.
template <class A, class M>
__device__ inline A across_warp(A value, M merge) {
#pragma unroll
  for (int distance = 16; distance; distance >>= 1) value = merge(value, from_lane_above(value, distance));
  return value;
}

struct Sum {
  __device__ R operator()(R a, R b) const { return a + b; }
  __device__ Pair operator()(Pair x, Pair y) const { return {x.a + y.a, x.b + y.b}; }
};
struct Max {
  __device__ R operator()(R a, R b) const { return a >= b || a != a ? a : b; }  // NaN comes through
};
