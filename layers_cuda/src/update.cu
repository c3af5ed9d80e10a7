// The assignments of an update, over variables that change in place.
//
// VARIABLES(X)  X(name, type) for each variable; all have the same count
// INPUTS(X)     X(name, type, mask) for each input that broadcasts to them
// BODY          statements over v_<name>, one line: an assignment to a variable rounds to its type
// V             as in pointwise.cu
#include "common.cuh"
#include "functions.cuh"
#include "axes.cuh"

#define INNER_BIT(mask) ((mask) >> (RANK - 1) & 1)
#define IN_PARAMETER(name, type, mask) const type *in_##name,
#define IN_LOAD(name, type, mask) \
  const Pack<type, width> pack_##name = load<width, (INNER_BIT(mask) != 0)>(in_##name + offset<mask>(at, size));
#define IN_PICK(name, type, mask) R v_##name = to<R>(pack_##name.v[v]);
#define VAR_PARAMETER(name, type) type *var_##name,
#define VAR_LOAD(name, type) Pack<type, width> pack_##name = load<width, true>(var_##name + position);
#define VAR_PICK(name, type) R v_##name = to<R>(pack_##name.v[v]);
#define VAR_KEEP(name, type) pack_##name.v[v] = to<type>(v_##name);
#define VAR_STORE(name, type) store<width>(var_##name + position, pack_##name);
#define RUN                                           \
  VARIABLES(VAR_LOAD)                                 \
  INPUTS(IN_LOAD)                                     \
  _Pragma("unroll") for (int v = 0; v < width; ++v) { \
    VARIABLES(VAR_PICK)                               \
    INPUTS(IN_PICK)                                   \
    BODY                                              \
    VARIABLES(VAR_KEEP)                               \
  }                                                   \
  VARIABLES(VAR_STORE)

extern "C" __global__ void update(INPUTS(IN_PARAMETER) VARIABLES(VAR_PARAMETER) const I count AXES(AXIS_PARAMETER)) {
  const I size[] = {AXES(AXIS_SIZE)};
  I packs[] = {AXES(AXIS_SIZE)};
  packs[RANK - 1] /= V;
  const I whole_packs = count / V;
  I at[RANK] = {};
  EACH(i, whole_packs) {
    constexpr int width = V;
    locate<~0u>(i, packs, at);
    at[RANK - 1] *= V;
    const I position = i * V;
    RUN
  }
  if (V == 1) return;
  EACH(rest, count - whole_packs * V) {
    constexpr int width = 1;
    const I position = at[RANK - 1] = whole_packs * V + rest;
    RUN
  }
}
