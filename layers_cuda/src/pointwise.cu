// y = EXPR over any number of inputs that broadcast to it.
//
// INPUTS(X)  X(name, type, mask) for each input; mask as in axes.cuh
// EXPR       one expression over v_<name>
// OUT        the element type of y
// V          elements a thread takes at once: 1, or 4 where the innermost axis can be cut so
// ROWS       where given, some of the tensors are parts of larger ones: parts.cuh
#include "common.cuh"
#include "functions.cuh"
#include "axes.cuh"
#include "parts.cuh"

#define INNER_BIT(mask) ((mask) >> (RANK - 1) & 1)
#define PARAMETER(name, type, mask) const type *in_##name,
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
