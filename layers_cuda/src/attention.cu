// What stands between the products of attention: weights of the scores, the slopes of both, and what may be looked at.
//
// LENGTH, MASK  types of the lengths and of the mask, if there are any (else null pointers)
// LANES         threads of one row (lanes.cuh)
//
// Scores, and the gradients of weights, are REAL; weights and slopes are T and may lie over them where that is the same.
// A row is a query of a head of a sample; the first row here is number `first` of all.
#include "common.cuh"
#include "lanes.cuh"

#ifndef LENGTH
#define LENGTH R
#endif
#ifndef MASK
#define MASK R
#endif

// Sizes of all heads, and where lengths and mask go on along the axes N H Tq Tk: 0 where they repeat.
#define SIGHTS                                                                                                    \
  const I first, const I heads, const I queries, const I keys, const int causal, const LENGTH *__restrict__ lengths, \
      const I ln, const I lh, const I lq, const MASK *__restrict__ mask, const I mn, const I mh, const I mq, const I mk
#define SIGHTS_GIVEN heads, queries, keys, causal, lengths, ln, lh, lq, mask, mn, mh, mq, mk

// What one query may look at: keys below `end` whose place in the mask is not 0.
struct Sight {
  I end, step;
  const MASK *line;
  __device__ bool operator()(I key) const { return key < end && (!line || line[key * step] != (MASK)0); }
};

__device__ inline Sight sight_of(I row, I heads, I queries, I keys, int causal, const LENGTH *lengths, I ln, I lh, I lq,
                                 const MASK *mask, I mn, I mh, I mq, I mk) {
  const I all = quotient(row, queries), i = row - all * queries, n = quotient(all, heads), h = all - n * heads;
  Sight found = {keys, mk, mask ? mask + n * mn + h * mh + i * mq : nullptr};
  if (lengths) {
    const long long length = whole(lengths[n * ln + h * lh + i * lq]);
    if (length < found.end) found.end = length > 0 ? (I)length : 0;
  }
  const I past = i + keys - queries + 1;
  if (causal && past < found.end) found.end = past > 0 ? past : 0;
  return found;
}

extern "C" __global__ void attention_weights(const R *scores, T *weights, R *__restrict__ lse, const I rows,
                                             const R scale, SIGHTS) {
  __shared__ R shared[THREADS];
  const I row = (I)blockIdx.x * GROUPS + group();
  const bool mine = row < rows;
  Sight sees = {0, 0, nullptr};
  if (mine) sees = sight_of(first + row, SIGHTS_GIVEN);
  const R *from = scores + (mine ? row * keys : 0);
  R highest = -infinity();
  for (I c = lane(); c < sees.end; c += LANES) {
    if (sees(c)) highest = Max()(highest, scale * from[c]);
  }
  highest = across_lanes(highest, shared, Max());
  const R low = highest == -infinity() ? (R)0 : highest;
  R total = 0;
  for (I c = lane(); c < sees.end; c += LANES) {
    if (sees(c)) total += exp(scale * from[c] - low);
  }
  total = across_lanes(total, shared, Sum());
  if (!mine) return;
  if (lane() == 0) lse[row] = highest + log(total);
  const R share = total == 0 ? (R)0 : (R)1 / total;
  for (I c = lane(); c < keys; c += LANES) {
    weights[row * keys + c] = to<T>(sees(c) ? exp(scale * from[c] - low) * share : (R)0);
  }
}

// weights = exp(scale * scores - lse), each row divided by its sum: 1, but for the digits that lse does not have.
// slopes = scale * weights * (dweights - sum of dy y + dlse).
extern "C" __global__ void attention_slopes(const R *scores, const R *dweights, const T *__restrict__ y,
                                            const T *__restrict__ dy, const R *__restrict__ lse,
                                            const R *__restrict__ dlse, T *weights, T *slopes, const I rows,
                                            const I outer, const R scale, SIGHTS) {
  __shared__ R shared[THREADS];
  const I row = (I)blockIdx.x * GROUPS + group();
  const bool mine = row < rows;
  R own = 0;
  if (mine) {
    for (I d = lane(); d < outer; d += LANES) own += to<R>(dy[row * outer + d]) * to<R>(y[row * outer + d]);
  }
  own = across_lanes(own, shared, Sum());
  Sight sees = {0, 0, nullptr};
  if (mine) sees = sight_of(first + row, SIGHTS_GIVEN);
  const R low = !mine || lse[row] == -infinity() ? (R)0 : lse[row];
  R total = 0;
  for (I c = lane(); c < sees.end; c += LANES) {
    if (sees(c)) total += exp(scale * scores[row * keys + c] - low);
  }
  total = across_lanes(total, shared, Sum());
  if (!mine) return;
  if (dlse) own -= dlse[row];
  const R share = total == 0 ? (R)0 : (R)1 / total;
  for (I c = lane(); c < keys; c += LANES) {
    const I at = row * keys + c;
    R weight = 0, slope = 0;
    if (sees(c)) {
      weight = exp(scale * scores[at] - low) * share;
      slope = scale * weight * (dweights[at] - own);
    }
    weights[at] = to<T>(weight);
    slopes[at] = to<T>(slope);
  }
}

// Rows of y = weights x (turned: weights' x) that are no number, once more over what is seen alone: a weight of 0 makes
// none of what is none. weights: heads queries keys; x and y: heads, keys or queries, size.
extern "C" __global__ void attention_mend(const T *__restrict__ weights, const T *__restrict__ x, T *y, const I rows,
                                          const I size, const int turned, SIGHTS) {
  __shared__ R shared[THREADS];
  const I row = (I)blockIdx.x * GROUPS + group();
  const bool mine = row < rows;
  R lost = 0;
  if (mine) {
    for (I d = lane(); d < size; d += LANES) lost += to<R>(y[row * size + d]) != to<R>(y[row * size + d]);
  }
  lost = across_lanes(lost, shared, Sum());
  if (!mine || lost == 0) return;
  const I own = turned ? keys : queries, other = turned ? queries : keys;
  const I head = quotient(row, own), i = row - head * own;
  for (I d = lane(); d < size; d += LANES) {
    R sum = 0;
    for (I c = 0; c < other; ++c) {
      const I query = head * queries + (turned ? c : i), key = turned ? i : c;
      if (sight_of(first + query, SIGHTS_GIVEN)(key)) {
        sum += to<R>(weights[query * keys + key]) * to<R>(x[(head * other + c) * size + d]);
      }
    }
    y[row * size + d] = to<T>(sum);
  }
}
