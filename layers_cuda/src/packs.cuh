// What INPUTS(X) does for kernels whose threads read V neighbouring results of every input.

#define INNER_BIT(mask) ((mask) >> (RANK - 1) & 1)
#define PARAMETER(name, type, mask) const type *__restrict__ in_##name,
#define LOAD(name, type, mask) \
  const Pack<type, V> pack_##name = load<V, (INNER_BIT(mask) != 0)>(in_##name + offset<mask>(at, size));
#define PICK(name, type, mask) const R v_##name = to<R>(pack_##name.v[v]);
