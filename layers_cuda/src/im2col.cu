// Windows as columns: N C S to N (C kernel) S', and the adjoint, gathered: no atomics.
#include "common.cuh"
#include "window.cuh"

extern "C" __global__ void im2col(const T *__restrict__ x, T *__restrict__ y, const I count SPACE(WINDOW_PARAMETER)) {
  const Place inputs = {SPACE(WINDOW_INPUT)}, outputs = {SPACE(WINDOW_OUTPUT)}, kernel = {KERNEL};
  const int input_plane = plane_of(inputs), output_plane = plane_of(outputs);
  EACH(i, count) {
    const I row = quotient(i, (I)output_plane), plane = row / TAPS;
    Place o, k;
    unravel((int)(i - row * output_plane), outputs, o);
    unravel((int)(row - plane * TAPS), kernel, k);
    int position = 0;
    bool inside = true;
#pragma unroll
    for (int j = 0; j < SPATIAL; ++j) {
      const int at = o[j] * stride_of(j) - pad_of(j) + k[j] * dilation_of(j);
      inside = inside && at >= 0 && at < inputs[j];
      position = position * inputs[j] + at;
    }
    y[i] = inside ? x[plane * input_plane + position] : to<T>((R)0);
  }
}

extern "C" __global__ void col2im(const T *__restrict__ y, T *__restrict__ x, const I count SPACE(WINDOW_PARAMETER)) {
  const Place inputs = {SPACE(WINDOW_INPUT)}, outputs = {SPACE(WINDOW_OUTPUT)};
  const int input_plane = plane_of(inputs), output_plane = plane_of(outputs);
  EACH(i, count) {
    const I plane = quotient(i, (I)input_plane);
    Place p, at;
    unravel((int)(i - plane * input_plane), inputs, p);
    R sum = 0;
    auto meet = [&](int output, int tap, const Place &) {
      sum += to<R>(y[(plane * TAPS + tap) * output_plane + output]);
    };
    outputs_of<0>(p, outputs, 0, 0, at, meet);
    x[i] = to<T>(sum);
  }
}
