// Where the elements of inputs and of y lie. ROWS: where given, some of the tensors are parts of larger ones: the axes
// from ROWS on are a run, and the runs of a tensor that extends along all axes lie its pitch apart.
// SOURCE(name, mask): the position in an input; TARGET(position): in y, of the element that would be at `position`.

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
