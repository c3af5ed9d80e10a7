// The sums of EXPR and of EXPR * OTHER over most of a tensor, by many blocks for each result: the gradient of batch
// normalisation. INPUTS(X) and EXPR as in reduce.cu, the rest as in moments.cu.
#include "common.cuh"
#include "functions.cuh"
#include "axes.cuh"
#include "lanes.cuh"
#include "packs.cuh"

extern "C" __global__ void sums(INPUTS(PARAMETER) Pair *__restrict__ partial, const I outputs, const I length,
                                const I chunk AXES(AXIS_PARAMETER)) {
  __shared__ Pair shared[THREADS];
  const I size[] = {AXES(AXIS_SIZE)};
  const I o = ((I)blockIdx.x * GROUPS + group()) * V;
  const I begin = (I)blockIdx.y * chunk, end = length - begin < chunk ? length : begin + chunk;
  Pair all[V] = {};
  if (o < outputs) {
    I at[RANK];
    locate<(KEPT)>(o, size, at);
    walk(begin + lane(), end, (I)LANES, size, at, [&] {
      INPUTS(LOAD)
#pragma unroll
      for (int v = 0; v < V; ++v) {
        INPUTS(PICK)
        const R one = (R)(EXPR);
        all[v].a += one;
        all[v].b += one * (R)(OTHER);
      }
    });
  }
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const Pair found = across_lanes(all[v], shared, Sum());
    if (lane() == 0 && o < outputs) partial[(I)blockIdx.y * outputs + o + v] = found;
  }
}

// A warp a result.
extern "C" __global__ void sums_partial(const Pair *__restrict__ partial, R *__restrict__ total,
                                        R *__restrict__ product, const I outputs, const int rows) {
  const I o = (I)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  Pair all = {0, 0};
  if (o < outputs) {
    for (int row = lane; row < rows; row += 32) all = Sum()(all, partial[(I)row * outputs + o]);
  }
  all = across_warp(all, Sum());
  if (lane != 0 || o >= outputs) return;
  total[o] = all.a;
  product[o] = all.b;
}
