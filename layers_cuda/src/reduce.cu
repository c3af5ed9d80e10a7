// Sum or maximum of EXPR over some axes of the inputs' broadcast shape.
//
// INPUTS(X), EXPR, OUT, AXES, RANK  as in pointwise.cu
// KEPT             the axes that stay (axes.cuh); at least one does not
// HOW              Sum or Max;  START  what it begins with
// LANES, COLUMNS   lanes.cuh
// V                results of one thread, which lie side by side: more than 1 only where COLUMNS is 1
//
// blockIdx.y cuts the walked elements into chunks. With one chunk the result goes to y, else to row blockIdx.y of
// partial, and reduce_partial merges the rows in order.
#include "common.cuh"
#include "functions.cuh"
#include "axes.cuh"
#include "lanes.cuh"
#include "packs.cuh"

extern "C" __global__ void reduce(INPUTS(PARAMETER) OUT *__restrict__ y, R *__restrict__ partial, const I outputs,
                                  const I length, const I chunk AXES(AXIS_PARAMETER)) {
  __shared__ R shared[THREADS];
  const I size[] = {AXES(AXIS_SIZE)};
  const I o = ((I)blockIdx.x * GROUPS + group()) * V;
  const I begin = (I)blockIdx.y * chunk, end = length - begin < chunk ? length : begin + chunk;
  R all[V];
#pragma unroll
  for (int v = 0; v < V; ++v) all[v] = START;
  if (o < outputs) {
    I at[RANK];
    locate<(KEPT)>(o, size, at);
    walk(begin + lane(), end, (I)LANES, size, at, [&] {
      INPUTS(LOAD)
#pragma unroll
      for (int v = 0; v < V; ++v) {
        INPUTS(PICK)
        all[v] = HOW()(all[v], (R)(EXPR));
      }
    });
  }
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const R found = across_lanes(all[v], shared, HOW());
    if (lane() != 0 || o >= outputs) continue;
    if (gridDim.y == 1) {
      y[o + v] = to<OUT>(found);
    } else {
      partial[(I)blockIdx.y * outputs + o + v] = found;
    }
  }
}

// One warp a result.
extern "C" __global__ void reduce_partial(const R *__restrict__ partial, OUT *__restrict__ y, const I outputs,
                                          const int rows) {
  const I o = (I)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  R all = START;
  if (o < outputs) {
    for (int row = lane; row < rows; row += 32) all = HOW()(all, partial[(I)row * outputs + o]);
  }
#pragma unroll
  for (int distance = 16; distance; distance >>= 1) all = HOW()(all, from_lane_above(all, distance));
  if (lane == 0 && o < outputs) y[o] = to<OUT>(all);
}
