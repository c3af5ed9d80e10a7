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
