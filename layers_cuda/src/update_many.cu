// One update rule over many tensors in one launch: block b works on chunk b of CHUNK elements.
//
// SLOTS         numbers in a row of the table: a pointer for each variable and each input of its own, then the count
// VARIABLES(X)  X(name, type, slot)
// INPUTS(X)     X(name, type, slot) for each input that has the shape of its variable
// SHARED(X)     X(name, type) for each input that is one number, the same for all tensors
// BODY          as in update.cu
// V             4 where every pointer is on 16 bytes, else 1
#include "common.cuh"
#include "functions.cuh"

#define SHARED_PARAMETER(name, type) const type *shared_##name,
#define SHARED_LOAD(name, type) const R one_##name = to<R>(*shared_##name);
#define SHARED_PICK(name, type) R v_##name = one_##name;
#define IN_LOAD(name, type, slot) \
  const Pack<type, width> pack_##name = load<width, true>((const type *)row[slot] + position);
#define IN_PICK(name, type, slot) R v_##name = to<R>(pack_##name.v[v]);
#define VAR_LOAD(name, type, slot) Pack<type, width> pack_##name = load<width, true>((const type *)row[slot] + position);
#define VAR_PICK(name, type, slot) R v_##name = to<R>(pack_##name.v[v]);
#define VAR_KEEP(name, type, slot) pack_##name.v[v] = to<type>(v_##name);
#define VAR_STORE(name, type, slot) store<width>((type *)row[slot] + position, pack_##name);
#define RUN                                           \
  VARIABLES(VAR_LOAD)                                 \
  INPUTS(IN_LOAD)                                     \
  _Pragma("unroll") for (int v = 0; v < width; ++v) { \
    VARIABLES(VAR_PICK)                               \
    INPUTS(IN_PICK)                                   \
    SHARED(SHARED_PICK)                               \
    BODY                                              \
    VARIABLES(VAR_KEEP)                               \
  }                                                   \
  VARIABLES(VAR_STORE)

// tables: rows of SLOTS numbers, one a tensor; chunks: (tensor, first element) of each block.
extern "C" __global__ void update_many(SHARED(SHARED_PARAMETER) const long long *tables, const long long *chunks) {
  const long long *row = tables + chunks[2 * (long long)blockIdx.x] * SLOTS;
  const long long begin = chunks[2 * (long long)blockIdx.x + 1];
  const long long left = row[SLOTS - 1] - begin;
  const int count = left < CHUNK ? (int)left : CHUNK;
  SHARED(SHARED_LOAD)
  for (int i = threadIdx.x; i < count / V; i += blockDim.x) {
    constexpr int width = V;
    const long long position = begin + i * V;
    RUN
  }
  for (int i = count / V * V + threadIdx.x; i < count; i += blockDim.x) {
    constexpr int width = 1;
    const long long position = begin + i;
    RUN
  }
}
