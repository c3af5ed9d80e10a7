// Softmax along one axis, and its adjoint. The output may lie over the input (over dy).
#include "common.cuh"
#include "classes.cuh"

extern "C" __global__ void softmax(const T *x, T *y, const I positions, const I k, const I inner) {
  __shared__ R shared[THREADS];
  const I p = (I)blockIdx.x * GROUPS + group();
  const bool mine = p < positions;
  const I base = mine ? base_of(p, k, inner) : 0;
  const Softmax of = softmax_over(x + base, k, inner, mine, shared);
  if (!mine) return;
  for (I c = lane(); c < k; c += LANES) {
    const I i = base + c * inner;
    y[i] = to<T>(of(to<R>(x[i])));
  }
}

extern "C" __global__ void softmax_grad(const T *y, const T *dy, T *dx, const I positions, const I k, const I inner) {
  __shared__ R shared[THREADS];
  const I p = (I)blockIdx.x * GROUPS + group();
  const bool mine = p < positions;
  const I base = mine ? base_of(p, k, inner) : 0;
  R sum = 0;
  if (mine) {
    for (I c = lane(); c < k; c += LANES) sum += to<R>(dy[base + c * inner]) * to<R>(y[base + c * inner]);
  }
  sum = across_lanes(sum, shared, Sum());
  if (!mine) return;
  for (I c = lane(); c < k; c += LANES) {
    const I i = base + c * inner;
    dx[i] = to<T>(to<R>(y[i]) * (to<R>(dy[i]) - sum));
  }
}
