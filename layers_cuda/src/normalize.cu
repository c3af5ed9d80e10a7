// Normalisation over some axes: the statistics, and the whole where one group of threads does it alone.
// AXES, RANK, KEPT, LANES, COLUMNS as in reduce.cu. Statistics are REAL, whatever the tensors hold.
//
// Where the walked elements are cut into chunks (blockIdx.y), moments and products leave one row of partial results a
// chunk, the _partial kernels merge the rows in order, and a pointwise kernel does the rest.
#include "common.cuh"
#include "axes.cuh"
#include "lanes.cuh"

constexpr unsigned EVERY = ~0u;

// Count, mean and sum of squared distances from the mean. Merged as in Chan, Golub, LeVeque, "Updating formulae and a
// pairwise algorithm for computing sample variances", 1979.
struct Moments {
  R n, mean, m2;
};
__device__ inline Moments from_lane_above(Moments value, int distance) {
  return {from_lane_above(value.n, distance), from_lane_above(value.mean, distance),
          from_lane_above(value.m2, distance)};
}
struct Merge {
  __device__ Moments operator()(Moments x, Moments y) const {
    const R n = x.n + y.n;
    if (n == (R)0) return x;
    const R share = y.n / n, apart = y.mean - x.mean;
    return {n, x.mean + apart * share, x.m2 + y.m2 + apart * apart * x.n * share};
  }
};

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

extern "C" __global__ void moments(const T *__restrict__ x, Moments *__restrict__ partial, const I outputs,
                                   const I length, const I chunk AXES(AXIS_PARAMETER)) {
  __shared__ Moments shared[THREADS];
  const I size[] = {AXES(AXIS_SIZE)};
  const I o = (I)blockIdx.x * GROUPS + group();
  const I begin = (I)blockIdx.y * chunk, end = length - begin < chunk ? length : begin + chunk;
  Moments all = {0, 0, 0};
  if (o < outputs) {
    I at[RANK];
    locate<(KEPT)>(o, size, at);
    all = moments_of(x, begin + lane(), end, size, at);
  }
  all = across_lanes(all, shared, Merge());
  if (lane() == 0 && o < outputs) partial[(I)blockIdx.y * outputs + o] = all;
}

extern "C" __global__ void moments_partial(const Moments *__restrict__ partial, R *__restrict__ mean,
                                           R *__restrict__ var, const I outputs, const int rows) {
  EACH(o, outputs) {
    Moments all = partial[o];
    for (int row = 1; row < rows; ++row) all = Merge()(all, partial[(I)row * outputs + o]);
    mean[o] = all.mean;
    var[o] = all.m2 / all.n;
  }
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

extern "C" __global__ void products(const T *__restrict__ y, const T *__restrict__ dy, Pair *__restrict__ partial,
                                    const I outputs, const I length, const I chunk AXES(AXIS_PARAMETER)) {
  __shared__ Pair shared[THREADS];
  const I size[] = {AXES(AXIS_SIZE)};
  const I o = (I)blockIdx.x * GROUPS + group();
  const I begin = (I)blockIdx.y * chunk, end = length - begin < chunk ? length : begin + chunk;
  Pair all = {0, 0};
  if (o < outputs) {
    I at[RANK];
    locate<(KEPT)>(o, size, at);
    walk(begin + lane(), end, (I)LANES, size, at, [&] {
      const I i = offset<EVERY>(at, size);
      const R d = to<R>(dy[i]);
      all.a += d;
      all.b += d * to<R>(y[i]);
    });
  }
  all = across_lanes(all, shared, Sum());
  if (lane() == 0 && o < outputs) partial[(I)blockIdx.y * outputs + o] = all;
}

// mean(dy) and mean(dy y), in REAL.
extern "C" __global__ void products_partial(const Pair *__restrict__ partial, R *__restrict__ mean,
                                            R *__restrict__ product, const I outputs, const int rows, const I length) {
  EACH(o, outputs) {
    Pair all = partial[o];
    for (int row = 1; row < rows; ++row) all = Sum()(all, partial[(I)row * outputs + o]);
    mean[o] = all.a / (R)length;
    product[o] = all.b / (R)length;
  }
}
