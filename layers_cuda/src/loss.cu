// Softmax with the negative log likelihood of a label. LABEL is the labels' element type.
#include "common.cuh"
#include "classes.cuh"

// The sums of both arrays in their first elements, added in the same order each time.
__device__ inline void fold(R *values, long long *counts) {
  __syncthreads();
  for (int half = THREADS / 2; half; half >>= 1) {
    if (threadIdx.x < half) {
      values[threadIdx.x] += values[threadIdx.x + half];
      counts[threadIdx.x] += counts[threadIdx.x + half];
    }
    __syncthreads();
  }
}

// prob = softmax(x); each block leaves the sum of its positions' losses and how many of them count.
// ignored: has_ignored is 0 where no label is.
extern "C" __global__ void softmax_nll(const T *__restrict__ x, const LABEL *__restrict__ label, T *__restrict__ prob,
                                       R *__restrict__ losses, long long *__restrict__ counted, Fault *fault,
                                       const I positions, const I k, const I inner, const int has_ignored,
                                       const long long ignored) {
  __shared__ R shared[THREADS];
  __shared__ long long counts[THREADS];
  R loss = 0;
  long long count = 0;
  const I blocks = quotient(positions + GROUPS - 1, (I)GROUPS);
  for (I block = blockIdx.x; block < blocks; block += gridDim.x) {
    const I p = block * GROUPS + group();
    const bool mine = p < positions;
    const I base = mine ? base_of(p, k, inner) : 0;
    const Softmax of = softmax_over(x + base, k, inner, mine, shared);
    if (mine) {
      for (I c = lane(); c < k; c += LANES) {
        const I i = base + c * inner;
        prob[i] = to<T>(of(to<R>(x[i])));
      }
    }
    if (mine && lane() == 0) {
      const long long chosen = whole(label[p]);
      if (has_ignored && chosen == ignored) continue;
      ++count;
      if (chosen < 0 || chosen >= (long long)k) {
        report(fault, (long long)p, (float)label[p]);
        continue;
      }
      const R likelihood = of(to<R>(x[base + (I)chosen * inner]));
      const R least = smallest_normal((R)0);
      loss -= log(likelihood >= least || likelihood != likelihood ? likelihood : least);
    }
  }
  shared[threadIdx.x] = loss;
  counts[threadIdx.x] = count;
  fold(shared, counts);
  if (threadIdx.x == 0) {
    losses[blockIdx.x] = shared[0];
    counted[blockIdx.x] = counts[0];
  }
}

// One block: loss = sum / norm, norm = what counts, or fixed_norm where that is not 0; at least 1.
extern "C" __global__ void softmax_nll_sum(const R *__restrict__ losses, const long long *__restrict__ counted,
                                           T *__restrict__ loss, T *__restrict__ norm, const int blocks,
                                           const double fixed_norm) {
  __shared__ R sums[THREADS];
  __shared__ long long counts[THREADS];
  R sum = 0;
  long long count = 0;
  for (int i = threadIdx.x; i < blocks; i += THREADS) {
    sum += losses[i];
    count += counted[i];
  }
  sums[threadIdx.x] = sum;
  counts[threadIdx.x] = count;
  fold(sums, counts);
  if (threadIdx.x == 0) {
    R divisor = fixed_norm != 0 ? (R)fixed_norm : (R)counts[0];
    divisor = divisor > (R)1 ? divisor : (R)1;
    norm[0] = to<T>(divisor);
    loss[0] = to<T>(sums[0] / divisor);
  }
}

// dx = (prob - onehot(label)) * dloss / norm, 0 at ignored positions.
extern "C" __global__ void softmax_nll_grad(const T *__restrict__ prob, const LABEL *__restrict__ label,
                                            const T *__restrict__ norm, const T *__restrict__ dloss, T *__restrict__ dx,
                                            const I count, const I k, const I inner, const int has_ignored,
                                            const long long ignored) {
  const R scale = to<R>(dloss[0]) / to<R>(norm[0]);
  EACH(i, count) {
    const I row = quotient(i, inner), o = quotient(row, k);
    const long long chosen = whole(label[o * inner + (i - row * inner)]);
    const R hit = chosen == (long long)(row - o * k) ? (R)1 : (R)0;
    dx[i] = has_ignored && chosen == ignored ? to<T>((R)0) : to<T>((to<R>(prob[i]) - hit) * scale);
  }
}
