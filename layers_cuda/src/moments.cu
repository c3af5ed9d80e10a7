// Mean and variance over most of a tensor, by many blocks for each result: batch normalisation.
//
// AXES, RANK, KEPT, LANES, COLUMNS as in reduce.cu
// V  results of one thread, which lie side by side: more than 1 only where COLUMNS is 1
//
// blockIdx.y cuts the walked elements into chunks, each of which leaves a row of partial results. A warp for each result
// merges the rows, in the same order every time.
#include "common.cuh"
#include "axes.cuh"
#include "lanes.cuh"
#include "moments.cuh"

constexpr unsigned EVERY = ~0u;

// Distances are taken from the first element of a result: a mean far from zero costs no digits.
extern "C" __global__ void moments(const T *__restrict__ x, Moments *__restrict__ partial, const I outputs,
                                   const I length, const I chunk AXES(AXIS_PARAMETER)) {
  __shared__ Moments shared[THREADS];
  const I size[] = {AXES(AXIS_SIZE)};
  const I o = ((I)blockIdx.x * GROUPS + group()) * V;
  const I begin = (I)blockIdx.y * chunk, end = length - begin < chunk ? length : begin + chunk;
  R sum[V] = {}, squares[V] = {};
  Pack<T, V> first = {};
  I n = 0;
  if (o < outputs) {
    I at[RANK];
#pragma unroll
    for (int j = 0; j < RANK; ++j) at[j] = 0;
    locate<(KEPT)>(o, size, at);
    first = load<V, true>(x + offset<EVERY>(at, size));
    walk(begin + lane(), end, (I)LANES, size, at, [&] {
      const Pack<T, V> pack = load<V, true>(x + offset<EVERY>(at, size));
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const R d = to<R>(pack.v[v]) - to<R>(first.v[v]);
        sum[v] += d;
        squares[v] += d * d;
      }
      ++n;
    });
  }
#pragma unroll
  for (int v = 0; v < V; ++v) {
    Moments all = {0, 0, 0};
    if (n > 0) {
      const R mean = sum[v] / (R)n, m2 = squares[v] - sum[v] * mean;
      all = {(R)n, to<R>(first.v[v]) + mean, m2 > (R)0 || m2 != m2 ? m2 : (R)0};
    }
    all = across_lanes(all, shared, Merge());
    if (lane() == 0 && o < outputs) partial[(I)blockIdx.y * outputs + o + v] = all;
  }
}

// A warp a result. inverse = 1 / sqrt(var + eps).
extern "C" __global__ void moments_partial(const Moments *__restrict__ partial, R *__restrict__ mean,
                                           R *__restrict__ var, R *__restrict__ inverse, const I outputs,
                                           const int rows, const R eps) {
  const I o = (I)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  Moments all = {0, 0, 0};
  if (o < outputs) {
    for (int row = lane; row < rows; row += 32) all = Merge()(all, partial[(I)row * outputs + o]);
  }
  all = across_warp(all, Merge());
  if (lane != 0 || o >= outputs) return;
  const R spread = all.m2 / all.n;
  mean[o] = all.mean;
  var[o] = spread;
  inverse[o] = (R)1 / sqrt(spread + eps);
}
