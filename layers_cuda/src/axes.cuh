// Broadcasting without strides. AXES(X) lists the axes of a block of elements, outermost first: X(0) X(1) ...; RANK is
// their number. A tensor is described by a mask: bit j is set where it extends along axis j and clear where it is
// repeated. Tensors are dense, so sizes and mask give every address.

#define AXIS_PARAMETER(j) , const I n##j
#define AXIS_SIZE(j) n##j,

// The coordinates of element i along the axes in WHICH; the others are left alone.
template <unsigned WHICH>
__device__ inline void locate(I i, const I (&size)[RANK], I (&at)[RANK]) {
#pragma unroll
  for (int j = RANK - 1; j >= 0; --j) {
    if (WHICH >> j & 1) {
      const bool outermost = (WHICH & ((1u << j) - 1)) == 0;
      const I rest = outermost ? 0 : quotient(i, size[j]);
      at[j] = i - rest * size[j];
      i = rest;
    }
  }
}

// The position in a tensor of that mask.
template <unsigned MASK>
__device__ inline I offset(const I (&at)[RANK], const I (&size)[RANK]) {
  I position = 0;
#pragma unroll
  for (int j = 0; j < RANK; ++j) {
    if (MASK >> j & 1) position = position * size[j] + at[j];
  }
  return position;
}

#ifdef KEPT
// Reductions: the axes in KEPT number the results, the others are walked over.
constexpr unsigned WALKED = ~(unsigned)(KEPT) & (unsigned)((1ull << RANK) - 1);
__device__ constexpr int last_axis(unsigned mask) { return mask >> 1 ? 1 + last_axis(mask >> 1) : 0; }
constexpr int INNER = last_axis(WALKED);

// f() for the walked elements begin, begin + step ... below end, with their coordinates in at.
template <class F>
__device__ inline void walk(I begin, I end, I step, const I (&size)[RANK], I (&at)[RANK], F f) {
  constexpr unsigned OUTER = WALKED & ~(1u << INNER);
  const I n = size[INNER], step_outer = quotient(step, n), step_inner = step - step_outer * n;
  I outer = quotient(begin, n), inner = begin - outer * n;
#pragma unroll 4
  for (I i = begin; i < end; i += step) {
    at[INNER] = inner;
    locate<OUTER>(outer, size, at);
    f();
    inner += step_inner;
    outer += step_outer;
    if (inner >= n) {
      inner -= n;
      ++outer;
    }
  }
}
#endif
