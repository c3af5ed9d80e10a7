// Elements one after another, from type IN to type OUT. V as in pointwise.cu.
#include "common.cuh"

extern "C" __global__ void copy(const IN *__restrict__ x, OUT *__restrict__ y, const I count) {
  const I packs = quotient(count, (I)V);
  EACH(i, packs) {
    const Pack<IN, V> in = load<V, true>(x + i * V);
    Pack<OUT, V> out;
#pragma unroll
    for (int v = 0; v < V; ++v) out.v[v] = to<OUT>(in.v[v]);
    store<V>(y + i * V, out);
  }
  EACH(rest, count - packs * V) y[packs * V + rest] = to<OUT>(x[packs * V + rest]);
}

extern "C" __global__ void fill(OUT *__restrict__ y, const I count, const double value) {
  const OUT one = to<OUT>(value);
  EACH(i, count) y[i] = one;
}
