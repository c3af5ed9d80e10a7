// y = op(a) op(b) + c, plainly: what runs where a library refuses. TA, TB: 1 where the last two axes are transposed.
// RANK, AXES, MASK_A, MASK_B: the batch axes and which of them a and b have (axes.cuh); y has all.
#include "common.cuh"
#include "axes.cuh"

constexpr int TILE = 64, DEEP = 16;

// 256 threads make a tile of 64 x 64, each 4 x 4 of it: rows ty + 16 i, columns tx + 16 j.
extern "C" __global__ void gemm(const T *__restrict__ a, const T *__restrict__ b, const T *__restrict__ c,
                                T *__restrict__ y, const I m, const I n, const I k, const I c_row, const I c_column,
                                const int has_c AXES(AXIS_PARAMETER)) {
  __shared__ R part_a[DEEP][TILE + 1], part_b[DEEP][TILE + 1];
  const I size[] = {AXES(AXIS_SIZE)};
  I batch = 1;
#pragma unroll
  for (int j = 0; j < RANK; ++j) batch *= size[j];
  const I across = quotient(n + TILE - 1, (I)TILE), down = quotient(m + TILE - 1, (I)TILE);
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  for (I t = blockIdx.x; t < batch * down * across; t += gridDim.x) {
    const I q = quotient(t, across), image = quotient(q, down);
    const I column = (t - q * across) * TILE, row = (q - image * down) * TILE;
    I at[RANK];
    locate<~0u>(image, size, at);
    const T *of_a = a + offset<MASK_A>(at, size) * m * k, *of_b = b + offset<MASK_B>(at, size) * k * n;
    R sum[4][4] = {};
    for (I deep = 0; deep < k; deep += DEEP) {
      for (int i = threadIdx.x; i < DEEP * TILE; i += 256) {
        // neighbouring threads read neighbouring elements, whichever way the matrix lies
        const int ai = TA ? i % TILE : i / DEEP, ad = TA ? i / TILE : i % DEEP;
        const int bj = TB ? i / DEEP : i % TILE, bd = TB ? i % DEEP : i / TILE;
        const I r = row + ai, s = column + bj, da = deep + ad, db = deep + bd;
        part_a[ad][ai] = r < m && da < k ? to<R>(of_a[TA ? da * m + r : r * k + da]) : (R)0;
        part_b[bd][bj] = s < n && db < k ? to<R>(of_b[TB ? s * k + db : db * n + s]) : (R)0;
      }
      __syncthreads();
#pragma unroll
      for (int d = 0; d < DEEP; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[i][j] += part_a[d][ty + 16 * i] * part_b[d][tx + 16 * j];
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const I r = row + ty + 16 * i, s = column + tx + 16 * j;
        if (r < m && s < n) {
          const R added = has_c ? to<R>(c[r * c_row + s * c_column]) : (R)0;
          y[image * m * n + r * n + s] = to<T>(sum[i][j] + added);
        }
      }
    }
  }
}
