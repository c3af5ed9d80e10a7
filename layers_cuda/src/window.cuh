// A sliding window over SPATIAL axes, known when the kernel is compiled: KERNEL, STRIDE, PAD, DILATION and PAD_END are
// lists of SPATIAL numbers. SPACE(X) lists the axes: X(0) X(1) ... The sizes of input and output are arguments.

#define WINDOW_PARAMETER(j) , const int in##j, const int out##j
#define WINDOW_INPUT(j) in##j,
#define WINDOW_OUTPUT(j) out##j,

typedef int Place[SPATIAL];

__device__ constexpr int kernel_size(int j) {
  const int all[] = {KERNEL};
  return all[j];
}
__device__ constexpr int stride_of(int j) {
  const int all[] = {STRIDE};
  return all[j];
}
__device__ constexpr int pad_of(int j) {
  const int all[] = {PAD};
  return all[j];
}
__device__ constexpr int dilation_of(int j) {
  const int all[] = {DILATION};
  return all[j];
}
__device__ constexpr int pad_end_of(int j) {
  const int all[] = {PAD_END};
  return all[j];
}
__device__ constexpr int taps_from(int j) { return j < SPATIAL ? kernel_size(j) * taps_from(j + 1) : 1; }
constexpr int TAPS = taps_from(0);
constexpr int UNROLLED = TAPS <= 32 ? 32 : 1;  // a window over a whole image would make a huge kernel

__device__ inline int plane_of(const Place &size) {
  int count = 1;
#pragma unroll
  for (int j = 0; j < SPATIAL; ++j) count *= size[j];
  return count;
}

// The coordinates of element i of a plane.
__device__ inline void unravel(int i, const Place &size, Place &at) {
#pragma unroll
  for (int j = SPATIAL - 1; j > 0; --j) {
    const int rest = quotient(i, size[j]);
    at[j] = i - rest * size[j];
    i = rest;
  }
  at[0] = i;
}

// f(position, tap) for each input that output o's window meets, in row-major order: its number in the plane, and the
// number of the kernel element that meets it.
template <int J, class F>
__device__ inline void inputs_of(const Place &o, const Place &size, int position, int tap, F &f) {
  if constexpr (J == SPATIAL) {
    f(position, tap);
  } else {
#pragma unroll UNROLLED
    for (int i = 0; i < kernel_size(J); ++i) {
      const int at = o[J] * stride_of(J) - pad_of(J) + i * dilation_of(J);
      if (at >= 0 && at < size[J]) {
        inputs_of<J + 1>(o, size, position * size[J] + at, tap * kernel_size(J) + i, f);
      }
    }
  }
}

// f(output, tap, o) for each output whose window meets input p, in row-major order: its number in the plane, the kernel
// element that meets p, and its coordinates.
template <int J, class F>
__device__ inline void outputs_of(const Place &p, const Place &outputs, int output, int tap, Place &o, F &f) {
  if constexpr (J == SPATIAL) {
    f(output, tap, o);
  } else {
    constexpr int s = stride_of(J), d = dilation_of(J), reach = d * (kernel_size(J) - 1);
    const int from_start = p[J] + pad_of(J);
    const int first = from_start > reach ? (from_start - reach + s - 1) / s : 0;
    const int last = from_start / s < outputs[J] - 1 ? from_start / s : outputs[J] - 1;
    for (int at = first; at <= last; ++at) {
      const int apart = from_start - at * s;
      if (d == 1 || apart % d == 0) {
        o[J] = at;
        outputs_of<J + 1>(p, outputs, output * outputs[J] + at, tap * kernel_size(J) + apart / d, o, f);
      }
    }
  }
}
