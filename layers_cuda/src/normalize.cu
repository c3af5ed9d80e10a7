// Normalisation over some axes where one group of threads does all of it for its results; moments.cu and sums.cu have
// what is needed where it takes more. AXES, RANK, KEPT, LANES, COLUMNS as in reduce.cu. Statistics are REAL, whatever the
// tensors hold.
#include "common.cuh"
#include "axes.cuh"
#include "lanes.cuh"
#include "moments.cuh"

constexpr unsigned EVERY = ~0u;

// One thread's part. Distances are taken from the group's first element: a mean far from zero costs no digits.
__device__ inline Moments moments_of(const T *x, I begin, I end, const I (&size)[RANK], I (&at)[RANK]) {
  I first[RANK];
#pragma unroll
  for (int j = 0; j < RANK; ++j) first[j] = (KEPT) >> j & 1 ? at[j] : 0;
  const R pivot = to<R>(x[offset<EVERY>(first, size)]);
  R sum = 0, squares = 0;
  I n = 0;
  walk(begin, end, (I)LANES, size, at, [&] {
    const R d = to<R>(x[offset<EVERY>(at, size)]) - pivot;
    sum += d;
    squares += d * d;
    ++n;
  });
  if (n == 0) return {0, 0, 0};
  const R mean = sum / (R)n, m2 = squares - sum * mean;
  return {(R)n, pivot + mean, m2 > (R)0 || m2 != m2 ? m2 : (R)0};
}

extern "C" __global__ void normalize(const T *x, T *y, R *mean, R *var, const I outputs, const I length,
                                     const R eps AXES(AXIS_PARAMETER)) {
  __shared__ Moments shared[THREADS];
  const I size[] = {AXES(AXIS_SIZE)};
  const I o = (I)blockIdx.x * GROUPS + group();
  I at[RANK];
  Moments all = {0, 0, 0};
  if (o < outputs) {
    locate<(KEPT)>(o, size, at);
    all = moments_of(x, lane(), length, size, at);
  }
  all = across_lanes(all, shared, Merge());
  if (o >= outputs) return;
  const R spread = all.m2 / all.n, root = sqrt(spread + eps);
  if (lane() == 0) {
    mean[o] = all.mean;
    var[o] = spread;
  }
  walk(lane(), length, (I)LANES, size, at, [&] {
    const I i = offset<EVERY>(at, size);
    y[i] = to<T>((to<R>(x[i]) - all.mean) / root);
  });
}

// dx = (dy - mean(dy) - y * mean(dy y)) / sqrt(var + eps). dx may lie over dy.
extern "C" __global__ void normalize_grad(const T *y, const R *var, const T *dy, T *dx, const I outputs,
                                          const I length, const R eps AXES(AXIS_PARAMETER)) {
  __shared__ Pair shared[THREADS];
  const I size[] = {AXES(AXIS_SIZE)};
  const I o = (I)blockIdx.x * GROUPS + group();
  I at[RANK];
  Pair all = {0, 0};
  if (o < outputs) {
    locate<(KEPT)>(o, size, at);
    walk(lane(), length, (I)LANES, size, at, [&] {
      const I i = offset<EVERY>(at, size);
      const R d = to<R>(dy[i]);
      all.a += d;
      all.b += d * to<R>(y[i]);
    });
  }
  all = across_lanes(all, shared, Sum());
  if (o >= outputs) return;
  const R root = sqrt(var[o] + eps), mean = all.a / (R)length, product = all.b / (R)length;
  walk(lane(), length, (I)LANES, size, at, [&] {
    const I i = offset<EVERY>(at, size);
    dx[i] = to<T>((to<R>(dy[i]) - mean - to<R>(y[i]) * product) / root);
  });
}
