// Local response normalisation across channels. SIZE: channels of a window. x: N C S with S as one axis of `inner`.
//
// A thread runs along CHUNK channels of one position with the window in registers: each input is read about once, and
// every sum is taken afresh, in the reference's order. QUARTERS: beta * 4 where that is 2, 3 or 4, else 0.
#include "common.cuh"

constexpr int CHUNK = 32;
constexpr int BEFORE = (SIZE - 1) / 2, AFTER = SIZE - 1 - BEFORE;

// scale ^ -beta
__device__ inline R falling(R scale, R beta) {
#if QUARTERS == 2
  return (R)1 / sqrt(scale);
#elif QUARTERS == 3
  const R root = sqrt(scale);
  return (R)1 / (root * sqrt(root));
#elif QUARTERS == 4
  return (R)1 / scale;
#else
  return pow(scale, -beta);
#endif
}

// f(channel, sum) for channels first .. last - 1: the sum of of(c) over channel - UP .. channel + DOWN inside 0 .. c - 1.
template <int UP, int DOWN, class G, class F>
__device__ inline void slide(I first, I last, I channels, G of, F f) {
  R window[SIZE];
#pragma unroll
  for (int i = 1; i < SIZE; ++i) {  // what the first sum holds, one place late
    const I c = first - 1 - UP + i;
    window[i] = c >= 0 && c < channels ? of(c) : (R)0;
  }
  for (I c = first; c < last; ++c) {
#pragma unroll
    for (int i = 0; i + 1 < SIZE; ++i) window[i] = window[i + 1];
    window[SIZE - 1] = c + DOWN < channels ? of(c + DOWN) : (R)0;
    R sum = 0;
#pragma unroll
    for (int i = 0; i < SIZE; ++i) sum += window[i];
    f(c, sum);
  }
}

#define RUNS                                                                    \
  const I chunks = quotient(channels + CHUNK - 1, (I)CHUNK);                    \
  EACH(i, images * chunks * inner)
#define PLACE_OF_RUN                                                            \
  const I row = quotient(i, inner), image = quotient(row, chunks);              \
  const I base = image * channels * inner + (i - row * inner);                  \
  const I first = (row - image * chunks) * CHUNK;                               \
  const I last = channels - first < CHUNK ? channels : first + CHUNK;

extern "C" __global__ void lrn(const T *__restrict__ x, T *__restrict__ y, T *__restrict__ scale, const I images,
                               const I channels, const I inner, const R share, const R beta, const R k) {
  RUNS {
    PLACE_OF_RUN
    slide<BEFORE, AFTER>(
        first, last, channels,
        [&](I c) {
          const R value = to<R>(x[base + c * inner]);
          return value * value;
        },
        [&](I c, R sum) {
          const I at = base + c * inner;
          const R s = k + share * sum;
          scale[at] = to<T>(s);
          y[at] = to<T>(to<R>(x[at]) * falling(s, beta));
        });
  }
}

extern "C" __global__ void lrn_grad(const T *__restrict__ x, const T *__restrict__ y, const T *__restrict__ scale,
                                    const T *__restrict__ dy, T *__restrict__ dx, const I images, const I channels,
                                    const I inner, const R share, const R beta) {
  RUNS {
    PLACE_OF_RUN
    slide<AFTER, BEFORE>(
        first, last, channels,
        [&](I c) {
          const I at = base + c * inner;
          return to<R>(dy[at]) * to<R>(y[at]) / to<R>(scale[at]);
        },
        [&](I c, R sum) {
          const I at = base + c * inner;
          dx[at] = to<T>(to<R>(dy[at]) * falling(to<R>(scale[at]), beta) - (R)2 * beta * share * to<R>(x[at]) * sum);
        });
  }
}
