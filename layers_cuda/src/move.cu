// Elements from one place to another, whatever they mean: WORD is an unsigned type of 1, 2, 4, 8 or 16 bytes.
// RANK, AXES as in axes.cuh.
#include "common.cuh"
#include "axes.cuh"

struct alignas(16) Bytes16 {
  unsigned long long a, b;
};

#define STEP_PARAMETER(j) , const I step##j
#define STEP(j) step##j,
#define BOX_PARAMETER(j) , const I box##j, const I begin##j
#define BOX_SIZE(j) box##j,
#define BOX_BEGIN(j) begin##j,

// y dense of the sizes n; x is walked with any steps from `base` on. Slices and transposes.
extern "C" __global__ void move_strided(const WORD *__restrict__ x, WORD *__restrict__ y, const I count,
                                        const I base AXES(AXIS_PARAMETER) AXES(STEP_PARAMETER)) {
  const I size[] = {AXES(AXIS_SIZE)}, step[] = {AXES(STEP)};
  EACH(i, count) {
    I at[RANK];
    locate<~0u>(i, size, at);
    I from = base;
#pragma unroll
    for (int j = 0; j < RANK; ++j) from += at[j] * step[j];
    y[i] = x[from];
  }
}

// y = zeros with the box x at `begin`.
extern "C" __global__ void move_into_zeros(const WORD *__restrict__ x, WORD *__restrict__ y,
                                           const I count AXES(AXIS_PARAMETER) AXES(BOX_PARAMETER)) {
  const I size[] = {AXES(AXIS_SIZE)}, box[] = {AXES(BOX_SIZE)}, begin[] = {AXES(BOX_BEGIN)};
  EACH(i, count) {
    I at[RANK];
    locate<~0u>(i, size, at);
    I from = 0;
    bool inside = true;
#pragma unroll
    for (int j = 0; j < RANK; ++j) {
      const I p = at[j] - begin[j];
      inside = inside && p >= 0 && p < box[j];
      from = from * box[j] + p;
    }
    WORD word = {};
    if (inside) word = x[from];
    y[i] = word;
  }
}

// y: batch x columns x rows from x: batch x rows x columns, in tiles of 32 x 32 through shared memory. 32 x 8 threads.
extern "C" __global__ void move_transposed(const WORD *__restrict__ x, WORD *__restrict__ y, const I batch,
                                           const I rows, const I columns) {
  __shared__ WORD tile[32][33];
  const I across = quotient(columns + 31, (I)32), down = quotient(rows + 31, (I)32);
  for (I t = blockIdx.x; t < batch * down * across; t += gridDim.x) {
    const I q = quotient(t, across), image = quotient(q, down);
    const I column = (t - q * across) * 32, row = (q - image * down) * 32;
    const WORD *from = x + image * rows * columns;
    WORD *into = y + image * rows * columns;
    for (int i = threadIdx.y; i < 32; i += 8) {
      if (row + i < rows && column + threadIdx.x < columns) {
        tile[i][threadIdx.x] = from[(row + i) * columns + column + threadIdx.x];
      }
    }
    __syncthreads();
    for (int i = threadIdx.y; i < 32; i += 8) {
      if (column + i < columns && row + threadIdx.x < rows) {
        into[(column + i) * rows + row + threadIdx.x] = tile[threadIdx.x][i];
      }
    }
    __syncthreads();
  }
}
