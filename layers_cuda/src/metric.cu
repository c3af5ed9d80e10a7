// Where a label ranks among the scores, and the largest scores. LABEL, PLACE: element types of labels and positions.
#ifndef LABEL
#define LABEL float
#endif
#ifndef PLACE
#define PLACE int
#endif
#include "common.cuh"
#include "classes.cuh"

struct Add {
  __device__ int operator()(int a, int b) const { return a + b; }
};

// y = how many other classes score at least as much as the label; K for a label out of range.
extern "C" __global__ void rank_of_label(const T *__restrict__ x, const LABEL *__restrict__ label, T *__restrict__ y,
                                         const I positions, const I k, const I inner) {
  __shared__ int shared[THREADS];
  const I p = (I)blockIdx.x * GROUPS + group();
  const bool mine = p < positions;
  const long long chosen = mine ? whole(label[p]) : 0;
  const bool inside = chosen >= 0 && chosen < (long long)k;
  int ahead = 0;
  if (mine && inside) {
    const I base = base_of(p, k, inner);
    const R score = to<R>(x[base + (I)chosen * inner]);
    for (I c = lane(); c < k; c += LANES) ahead += c != (I)chosen && to<R>(x[base + c * inner]) >= score;
  }
  ahead = across_lanes(ahead, shared, Add());
  if (mine && lane() == 0) y[p] = to<T>(inside ? (R)ahead : (R)k);
}

// The order of topk: falling scores, NaN last, then falling positions.
struct Scored {
  R score;
  int place;  // -1: none
};
__device__ inline Scored from_lane_above(Scored value, int distance) {
  return {from_lane_above(value.score, distance), from_lane_above(value.place, distance)};
}
__device__ inline bool before(Scored x, Scored y) {
  if (x.place < 0 || y.place < 0) return x.place >= 0;
  const bool x_nan = x.score != x.score, y_nan = y.score != y.score;
  if (x_nan || y_nan) return x_nan == y_nan ? x.place > y.place : y_nan;
  return x.score != y.score ? x.score > y.score : x.place > y.place;
}
struct Best {
  __device__ Scored operator()(Scored x, Scored y) const { return before(x, y) ? x : y; }
};

// top rounds; each finds the best one that comes after the last.
extern "C" __global__ void topk(const T *__restrict__ x, T *__restrict__ values, PLACE *__restrict__ places,
                                const I positions, const I k, const I inner, const I top) {
  __shared__ Scored shared[THREADS];
  const I p = (I)blockIdx.x * GROUPS + group();
  const bool mine = p < positions;
  const I base = mine ? base_of(p, k, inner) : 0, out = mine ? base_of(p, top, inner) : 0;
  Scored last = {0, -1};
  for (I round = 0; round < top; ++round) {
    Scored best = {0, -1};
    if (mine) {
      for (I c = lane(); c < k; c += LANES) {
        const Scored found = {to<R>(x[base + c * inner]), (int)c};
        if ((round == 0 || before(last, found)) && before(found, best)) best = found;
      }
    }
    last = across_lanes(best, shared, Best());
    if (mine && lane() == 0) {
      values[out + round * inner] = to<T>(last.score);
      places[out + round * inner] = to<PLACE>(last.place);
    }
  }
}
