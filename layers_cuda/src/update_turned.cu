// An update of filters K C S whose gradient lies, and of which a copy shall lie, in the order K S C: what convolutions
// with channels last read and write. Many filters in one launch: block b works on chunk b, some channels of one filter.
//
// SLOTS          numbers in a row of the table: a pointer for each tensor, then C, S, and the channels of a chunk
// VARIABLES(X)   X(name, type, slot): K C S, change in place
// NUMBERS(X)     X(name, type, slot): one number each
// TURNED_IN(X)   X(name, type, slot): at most one, an input in the order K S C
// TURNED_OUT(X)  X(name, type, slot): at most one, what BODY assigns to it in the order K S C
// BODY           as in update.cu
// MOST           elements of a chunk at most
//
// Both orders are read and written side by side; the elements change places in shared memory.
#include "common.cuh"
#include "functions.cuh"

#define NUMBER_LOAD(name, type, slot) const R one_##name = to<R>(*(const type *)row[slot]);
#define NUMBER_PICK(name, type, slot) R v_##name = one_##name;
#define VAR_LOAD(name, type, slot) R v_##name = to<R>(((const type *)row[slot])[begin + i]);
#define VAR_STORE(name, type, slot) ((type *)row[slot])[begin + i] = to<type>(v_##name);
#define IN_TAKE(name, type, slot)                                                          \
  EACH_TURNED tile[at] = to<R>(((const type *)row[slot])[turned + (long long)s * channels + c]); \
  __syncthreads();
#define IN_PICK(name, type, slot) R v_##name = tile[i];
#define OUT_DECLARE(name, type, slot) R v_##name = 0;
#define OUT_KEEP(name, type, slot) tile[i] = v_##name;
#define OUT_GIVE(name, type, slot) \
  __syncthreads();                 \
  EACH_TURNED((type *)row[slot])[turned + (long long)s * channels + c] = to<type>(tile[at]);

// c and s of the chunk's elements in the order S C, and where each lies in the order C S.
#define EACH_TURNED                                                                             \
  for (int i = threadIdx.x, s = i / n, c = i - s * n, at = c * places + s; i < count;           \
       i += blockDim.x, s = i / n, c = i - s * n, at = c * places + s)

extern "C" __global__ void update_turned(const long long *tables, const long long *chunks) {
  __shared__ R tile[MOST];
  const long long *row = tables + chunks[2 * (long long)blockIdx.x] * SLOTS;
  const long long begin = chunks[2 * (long long)blockIdx.x + 1];
  const int channels = (int)row[SLOTS - 3], places = (int)row[SLOTS - 2], most = (int)row[SLOTS - 1];
  const long long filter = (long long)channels * places, of = begin / filter * filter;
  const int first = (int)((begin - of) / places);
  const int n = channels - first < most ? channels - first : most, count = n * places;
  const long long turned = of + first;
  NUMBERS(NUMBER_LOAD)
  TURNED_IN(IN_TAKE)
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    VARIABLES(VAR_LOAD)
    NUMBERS(NUMBER_PICK)
    TURNED_IN(IN_PICK)
    TURNED_OUT(OUT_DECLARE)
    BODY
    VARIABLES(VAR_STORE)
    TURNED_OUT(OUT_KEEP)
  }
  TURNED_OUT(OUT_GIVE)
}
