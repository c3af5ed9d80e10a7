// y = EXPR over any number of inputs that broadcast to it.
//
// INPUTS(X)  X(name, type, mask) for each input; mask as in axes.cuh
// EXPR       one expression over v_<name>
// OUT        the element type of y
// V          elements a thread takes at once: 1, or 4 where the innermost axis can be cut so
// ROWS       where given, some of the tensors are parts of larger ones: the axes from ROWS on are a run, and the runs of
//            a tensor that extends along all axes lie its pitch apart
#include "common.cuh"
#include "functions.cuh"
#include "axes.cuh"

#define INNER_BIT(mask) ((mask) >> (RANK - 1) & 1)
#define PARAMETER(name, type, mask) const type *in_##name,
#ifdef ROWS
template <unsigned MASK>
__device__ inline I within(const I (&at)[RANK], const I (&size)[RANK], I pitch) {
  if constexpr (MASK != (unsigned)((1ull << RANK) - 1)) return offset<MASK>(at, size);
  I row = 0, run = 0;
#pragma unroll
  for (int j = 0; j < RANK; ++j) {
    if (j < ROWS) {
      row = row * size[j] + at[j];
    } else {
      run = run * size[j] + at[j];
    }
  }
  return row * pitch + run;
}
#define PITCH_PARAMETER(name, type, mask) , const I pitch_##name
#define PITCHES INPUTS(PITCH_PARAMETER) , const I pitch_y
#define SOURCE(name, mask) within<mask>(at, size, pitch_##name)
#define TARGET(position) within<(unsigned)((1ull << RANK) - 1)>(at, size, pitch_y)
#else
#define PITCHES
#define SOURCE(name, mask) offset<mask>(at, size)
#define TARGET(position) (position)
#endif
#define LOAD(name, type, mask) \
  const Pack<type, width> pack_##name = load<width, (INNER_BIT(mask) != 0)>(in_##name + SOURCE(name, mask));
#define PICK(name, type, mask) const R v_##name = to<R>(pack_##name.v[v]);
#define RUN(position)                                          \
  INPUTS(LOAD)                                                 \
  Pack<OUT, width> result;                                     \
  _Pragma("unroll") for (int v = 0; v < width; ++v) {          \
    INPUTS(PICK)                                               \
    result.v[v] = to<OUT>((R)(EXPR));                          \
  }                                                            \
  store<width>(y + TARGET(position), result);

// No __restrict__: y may lie over one of the inputs. Each thread has read its elements before it writes them.
extern "C" __global__ void pointwise(INPUTS(PARAMETER) OUT *y, const I count AXES(AXIS_PARAMETER) PITCHES) {
  const I size[] = {AXES(AXIS_SIZE)};
  I packs[] = {AXES(AXIS_SIZE)};
  packs[RANK - 1] /= V;
  const I whole_packs = count / V;
  I at[RANK] = {};
  EACH(i, whole_packs) {
    constexpr int width = V;
    locate<~0u>(i, packs, at);
    at[RANK - 1] *= V;
    RUN(i * V)
  }
  if (V == 1) return;
  // What is left over: only where there is a single axis.
  EACH(rest, count - whole_packs * V) {
    constexpr int width = 1;
    at[RANK - 1] = whole_packs * V + rest;
    RUN(at[RANK - 1])
  }
}
