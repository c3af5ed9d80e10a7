// Connectionist temporal classification, T N K scores. One block a sequence walks over the steps, its threads over the
// S = 2 L + 1 places of the labels with blanks between them. alpha: T N S. LABEL: the labels' type; LENGTH: the lengths'.
#include "common.cuh"
#include "classes.cuh"

__device__ inline R log_sum(R a, R b) {
  const R high = a >= b ? a : b, low = a >= b ? b : a;
  return low == -infinity() ? high : high + log1p(exp(low - high));
}
__device__ inline I within(long long value, I most) {
  return value < 0 ? 0 : value > (long long)most ? most : (I)value;
}

// What a library computes: labels that all are classes other than the blank, at least one, and that fit into the steps.
// One block. Their labels one after another, their counts and steps; where odd is 1, one label in their place, and the
// kernels below compute the sequence. begin: room for where each one's labels start.
extern "C" __global__ void ctc_given(const LABEL *label, const LENGTH *steps, const LENGTH *counts, int *packed,
                                     int *count, int *end, int *odd, int *begin, const I most, const I streams,
                                     const I k, const I labels, const I blank) {
  for (I n = threadIdx.x; n < streams; n += blockDim.x) {
    const LABEL *own = label + n * labels;
    const I last = within(whole(steps[n]), most), length = within(whole(counts[n]), labels);
    I needed = length;
    bool plain = length > 0;
    for (I s = 0; s < length; ++s) {
      const long long c = whole(own[s]);
      plain = plain && c >= 0 && c < (long long)k && c != (long long)blank;
      if (s > 0 && c == whole(own[s - 1])) ++needed;
    }
    plain = plain && needed <= last;
    odd[n] = !plain;
    count[n] = plain ? (int)length : 1;
    end[n] = plain ? (int)last : (int)most;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int at = 0;
    for (I n = 0; n < streams; ++n) {
      begin[n] = at;
      at += count[n];
    }
  }
  __syncthreads();
  for (I n = threadIdx.x; n < streams; n += blockDim.x) {
    for (int s = 0; s < count[n]; ++s) packed[begin[n] + s] = odd[n] ? (blank ? 0 : 1) : (int)whole(label[n * labels + s]);
  }
}

// Below, odd says which sequences are to be computed; null: all.
__device__ inline bool ours(const int *odd, I n) { return !odd || odd[n]; }

// The logarithm of the sum of exp(x) over the classes, for each step and sequence.
extern "C" __global__ void ctc_norm(const T *x, R *norm, const int *odd, const I positions, const I streams,
                                    const I k) {
  __shared__ R shared[THREADS];
  const I p = (I)blockIdx.x * GROUPS + group();
  const bool mine = p < positions && ours(odd, p - quotient(p, streams) * streams);
  const Softmax of = softmax_over(x + (mine ? p * k : 0), k, (I)1, mine, shared);
  if (mine && lane() == 0) norm[p] = of.highest + log(of.sum);
}

// alpha becomes the probability of each place at each step given the labels; ok: 1 where the labels fit.
extern "C" __global__ void ctc_walk(const T *x, const LABEL *label, const LENGTH *steps, const LENGTH *counts,
                                    const R *norm, R *alpha, R *beta, R *ok, T *loss, const int *odd, Fault *fault,
                                    const I most, const I streams, const I k, const I labels, const I blank) {
  __shared__ int bad;
  const I n = blockIdx.x, places = 2 * labels + 1;
  if (!ours(odd, n)) return;
  const I end = within(whole(steps[n]), most), length = within(whole(counts[n]), labels), used = 2 * length + 1;
  const LABEL *own = label + n * labels;
  if (threadIdx.x == 0) bad = 0;
  __syncthreads();
  for (I s = threadIdx.x; s < length; s += blockDim.x) {
    const long long chosen = whole(own[s]);
    if (chosen < 0 || chosen >= (long long)k) {
      report(fault, (long long)(n * labels + s), (float)own[s]);
      bad = 1;
    }
  }
  __syncthreads();
  const bool refused = bad != 0;
  R total = -infinity();
  if (!refused) {
    for (I t = 0; t < end; ++t) {
      const R *row = alpha + ((t - 1) * streams + n) * places;
      for (I s = threadIdx.x; s < used; s += blockDim.x) {
        const I c = s % 2 ? (I)whole(own[s / 2]) : blank;
        R sum = -infinity();
        if (t == 0) {
          sum = s < 2 ? (R)0 : sum;
        } else {
          sum = row[s];
          if (s > 0) sum = log_sum(sum, row[s - 1]);
          if (s > 1 && s % 2 && c != (I)whole(own[s / 2 - 1]) && c != blank) sum = log_sum(sum, row[s - 2]);
        }
        alpha[(t * streams + n) * places + s] = sum + to<R>(x[(t * streams + n) * k + c]) - norm[t * streams + n];
      }
      __syncthreads();
    }
    if (end > 0) {
      const R *last = alpha + ((end - 1) * streams + n) * places;
      total = last[used - 1];
      if (used > 1) total = log_sum(total, last[used - 2]);
    } else if (length == 0) {
      total = 0;
    }
  }
  const bool fits = total != -infinity();
  __syncthreads();
  for (I t = end - 1; t >= 0; --t) {
    R *now = beta + ((t & 1) * streams + n) * places, *later = beta + (((t + 1) & 1) * streams + n) * places;
    const I at = (t + 1) * streams + n;
    for (I s = threadIdx.x; s < used; s += blockDim.x) {
      R sum = t == end - 1 && s >= used - 2 ? (R)0 : -infinity();
      if (t < end - 1 && fits) {
        for (I j = s; j < used && j < s + 3; ++j) {
          const I c = j % 2 ? (I)whole(own[j / 2]) : blank;
          if (j == s + 2 && (j % 2 == 0 || c == (I)whole(own[s / 2]) || c == blank)) continue;
          sum = log_sum(sum, later[j] + to<R>(x[at * k + c]) - norm[at]);
        }
      }
      now[s] = sum;
      R *a = alpha + (t * streams + n) * places + s;
      *a = fits ? exp(*a + sum - total) : (R)0;
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    ok[n] = fits ? (R)1 : (R)0;
    loss[n] = to<T>(fits ? -total : (R)0);
  }
}

// slope = softmax(x) where the sequence counts, else 0; of what a library has computed, 0 behind the last step alone.
extern "C" __global__ void ctc_soft(const T *x, const R *norm, const R *ok, const LENGTH *steps, const int *odd,
                                    T *slope, const I count, const I streams, const I k) {
  EACH(i, count) {
    const I p = quotient(i, k), t = quotient(p, streams), n = p - t * streams;
    if (!ours(odd, n)) {
      if ((long long)t >= whole(steps[n])) slope[i] = to<T>((R)0);
      continue;
    }
    const bool counts = ok[n] != (R)0 && (long long)t < whole(steps[n]);
    slope[i] = to<T>(counts ? exp(to<R>(x[i]) - norm[p]) : (R)0);
  }
}

// slope -= the probability of each class: the first place of a class adds up all of its places.
extern "C" __global__ void ctc_slope(const LABEL *label, const R *alpha, const R *ok, const LENGTH *steps,
                                     const LENGTH *counts, const int *odd, T *slope, const I count, const I streams,
                                     const I k, const I labels, const I blank) {
  const I places = 2 * labels + 1;
  EACH(i, count) {
    const I p = quotient(i, places), s = i - p * places, t = quotient(p, streams), n = p - t * streams;
    const I used = 2 * within(whole(counts[n]), labels) + 1;
    if (!ours(odd, n) || s >= used || ok[n] == (R)0 || (long long)t >= whole(steps[n])) continue;
    const LABEL *own = label + n * labels;
    const I c = s % 2 ? (I)whole(own[s / 2]) : blank;
    bool first = true;
    R sum = 0;
    for (I j = 0; j < used; ++j) {
      if ((j % 2 ? (I)whole(own[j / 2]) : blank) != c) continue;
      first = first && j >= s;
      sum += alpha[p * places + j];
    }
    if (first) slope[p * k + c] = to<T>(to<R>(slope[p * k + c]) - sum);
  }
}
