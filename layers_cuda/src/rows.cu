// Whole rows chosen by an index, and the adjoint. LABEL: the element type of the index. Out of range: reported.
#define LANES 1
#define COLUMNS 0
#include "common.cuh"
#include "classes.cuh"

extern "C" __global__ void gather(const T *__restrict__ x, const LABEL *__restrict__ index, T *__restrict__ y,
                                  Fault *fault, const I count, const I rows, const I width) {
  EACH(i, count) {
    const I q = quotient(i, width), c = i - q * width;
    const long long row = whole(index[q]);
    const bool inside = row >= 0 && row < (long long)rows;
    if (!inside && c == 0) report(fault, (long long)q, (float)index[q]);
    y[i] = inside ? x[(I)row * width + c] : to<T>((R)0);
  }
}

// y[r] = the sum of the rows of x whose index is r, in order. A block makes one row (grid-stride) and reads the whole
// index for it: rows * entries reads of the index, from cache, and no atomics.
extern "C" __global__ void scatter_add(const LABEL *__restrict__ index, const T *__restrict__ x, T *y, Fault *fault,
                                       const I entries, const I rows, const I width) {
  __shared__ unsigned met[8];
  for (I r = blockIdx.x; r < rows; r += gridDim.x) {
    for (I c = threadIdx.x; c < width; c += 256) y[r * width + c] = to<T>((R)0);
    for (I begin = 0; begin < entries; begin += 256) {
      const I e = begin + threadIdx.x;
      const long long row = e < entries ? whole(index[e]) : -1;
      if (r == 0 && row >= (long long)rows) report(fault, (long long)e, (float)index[e]);
      const unsigned mask = __ballot_sync(0xffffffffu, row == (long long)r);
      if (threadIdx.x % 32 == 0) met[threadIdx.x / 32] = mask;
      __syncthreads();
      for (int w = 0; w < 8; ++w) {
        for (unsigned left = met[w]; left; left &= left - 1) {
          const I from = begin + w * 32 + __ffs((int)left) - 1;
          for (I c = threadIdx.x; c < width; c += 256) {
            y[r * width + c] = to<T>(to<R>(y[r * width + c]) + to<R>(x[from * width + c]));
          }
        }
      }
      __syncthreads();
    }
  }
}
