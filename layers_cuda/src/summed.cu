// y = EXPR as in pointwise.cu, and on the way the sums of it over some axes, laid out as in reduce.cu: a gradient behind
// a ReLU and the gradient of the bias before it.
//
// INPUTS(X), EXPR, OUT, ROWS  as in pointwise.cu
// TOTAL                       the element type of the sums
// AXES, RANK, KEPT, LANES, COLUMNS, V  as in reduce.cu
//
// blockIdx.y cuts the walked elements into chunks. With one chunk the sums go to total, else to row blockIdx.y of
// partial, and summed_partial adds the rows up in order.
#include "common.cuh"
#include "functions.cuh"
#include "axes.cuh"
#include "lanes.cuh"
#include "parts.cuh"

#define INNER_BIT(mask) ((mask) >> (RANK - 1) & 1)
#define PARAMETER(name, type, mask) const type *in_##name,
#define LOAD(name, type, mask) \
  const Pack<type, V> pack_##name = load<V, (INNER_BIT(mask) != 0)>(in_##name + SOURCE(name, mask));
#define PICK(name, type, mask) const R v_##name = to<R>(pack_##name.v[v]);

constexpr unsigned EVERY = (unsigned)((1ull << RANK) - 1);

// No __restrict__: y may lie over one of the inputs. Each thread has read its elements before it writes them.
extern "C" __global__ void summed(INPUTS(PARAMETER) OUT *y, TOTAL *total, R *partial, const I outputs, const I length,
                                  const I chunk AXES(AXIS_PARAMETER) PITCHES) {
  __shared__ R shared[THREADS];
  const I size[] = {AXES(AXIS_SIZE)};
  const I o = ((I)blockIdx.x * GROUPS + group()) * V;
  const I begin = (I)blockIdx.y * chunk, end = length - begin < chunk ? length : begin + chunk;
  R all[V] = {};
  if (o < outputs) {
    I at[RANK];
    locate<(KEPT)>(o, size, at);
    walk(begin + lane(), end, (I)LANES, size, at, [&] {
      INPUTS(LOAD)
      Pack<OUT, V> result;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        INPUTS(PICK)
        const R one = (R)(EXPR);
        result.v[v] = to<OUT>(one);
        all[v] += one;
      }
      store<V>(y + TARGET(offset<EVERY>(at, size)), result);
    });
  }
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const R found = across_lanes(all[v], shared, Sum());
    if (lane() != 0 || o >= outputs) continue;
    if (gridDim.y == 1) {
      total[o + v] = to<TOTAL>(found);
    } else {
      partial[(I)blockIdx.y * outputs + o + v] = found;
    }
  }
}

// A warp a result.
extern "C" __global__ void summed_partial(const R *__restrict__ partial, TOTAL *__restrict__ total, const I outputs,
                                          const int rows) {
  const I o = (I)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  R all = 0;
  if (o < outputs) {
    for (int row = lane; row < rows; row += 32) all += partial[(I)row * outputs + o];
  }
  all = across_warp(all, Sum());
  if (lane == 0 && o < outputs) total[o] = to<TOTAL>(all);
}
