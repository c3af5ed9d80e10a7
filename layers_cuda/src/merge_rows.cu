// The rows of x with one index, summed in order at the first of them: Kernels.merge_rows. A block makes one entry
// (grid-stride) and reads the whole index for it, as scatter_add does: no atomics. LABEL: the element type of the index.
#define LANES 1
#define COLUMNS 0
#include "common.cuh"
#include "classes.cuh"

extern "C" __global__ void merge_rows(const LABEL *__restrict__ index, const T *__restrict__ x, int *rows, T *y,
                                      const I entries, const I width) {
  __shared__ unsigned met[8];
  for (I e = blockIdx.x; e < entries; e += gridDim.x) {
    const long long row = whole(index[e]);
    bool first = row >= 0;
    for (I c = threadIdx.x; c < width; c += 256) y[e * width + c] = to<T>((R)0);
    for (I begin = 0; begin < entries && first; begin += 256) {
      const I f = begin + threadIdx.x;
      const unsigned mask = __ballot_sync(0xffffffffu, f < entries && whole(index[f]) == row);
      if (threadIdx.x % 32 == 0) met[threadIdx.x / 32] = mask;
      __syncthreads();
      for (int w = 0; w < 8 && first; ++w) {
        for (unsigned left = met[w]; left; left &= left - 1) {
          const I from = begin + w * 32 + __ffs((int)left) - 1;
          if (from < e) {  // met in order, so nothing has been added yet
            first = false;
            break;
          }
          for (I c = threadIdx.x; c < width; c += 256) {
            y[e * width + c] = to<T>(to<R>(y[e * width + c]) + to<R>(x[from * width + c]));
          }
        }
      }
      __syncthreads();
    }
    if (threadIdx.x == 0) rows[e] = first ? (int)row : -1;
  }
}
