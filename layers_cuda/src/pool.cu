// Pooling over the planes of N C S; with LAST of N S C. One thread an output (gradients: an input); no atomics, so the
// same bits each time. With PART the floats of the windows' side (y, dy) are runs that lie `pitch` apart in a larger
// tensor.
#include "common.cuh"
#include "window.cuh"

#ifdef PART
#define PART_PARAMETERS , const I run, const I pitch
#define AT(element) ((element) + quotient(element, run) * (pitch - run))
#else
#define PART_PARAMETERS
#define AT(element) (element)
#endif

// A thread's element `own` of its plane, and where that plane begins in the tensor it numbers (near, of near_plane
// elements) and in the other one (far); neighbours within a plane lie STEP apart.
#ifdef LAST
#define COUNT const I count, const I channels PART_PARAMETERS
#define STEP channels
#define LOCATE(near_plane, far_plane)                                             \
  const I row = quotient(i, channels), channel = i - row * channels;              \
  const I image = quotient(row, (I)(near_plane));                                 \
  const int own = (int)(row - image * (near_plane));                              \
  const I far = image * (far_plane) * channels + channel;
#else
#define COUNT const I count PART_PARAMETERS
#define STEP 1
#define LOCATE(near_plane, far_plane)                                             \
  const I plane = quotient(i, (I)(near_plane));                                   \
  const int own = (int)(i - plane * (near_plane));                                \
  const I far = plane * (far_plane);
#endif
#define SIZES                              \
  const Place inputs = {SPACE(WINDOW_INPUT)}, outputs = {SPACE(WINDOW_OUTPUT)}; \
  const int input_plane = plane_of(inputs), output_plane = plane_of(outputs);

extern "C" __global__ void pool_max(const T *__restrict__ x, T *__restrict__ y, int *__restrict__ index,
                                    COUNT SPACE(WINDOW_PARAMETER)) {
  SIZES
  EACH(i, count) {
    LOCATE(output_plane, input_plane)
    const T *of = x + far;
    Place o;
    unravel(own, outputs, o);
    R best = -largest((T)0);
    int at = -1;
    auto meet = [&](int position, int) {
      const R value = to<R>(of[(I)position * STEP]);
      const bool fresh = at < 0;
      if (fresh || value > best) at = position;
      if (fresh || !(best >= value || best != best)) best = value;  // NaN comes through
    };
    inputs_of<0>(o, inputs, 0, 0, meet);
    y[AT(i)] = to<T>(best);
    index[i] = at;
  }
}

extern "C" __global__ void pool_max_grad(const int *__restrict__ index, const T *__restrict__ dy, T *__restrict__ dx,
                                         COUNT SPACE(WINDOW_PARAMETER)) {
  SIZES
  EACH(i, count) {
    LOCATE(input_plane, output_plane)
    Place p, o;
    unravel(own, inputs, p);
    R sum = 0;
    auto meet = [&](int output, int, const Place &) {
      const I at = far + (I)output * STEP;
      if (index[at] == own) sum += to<R>(dy[AT(at)]);
    };
    outputs_of<0>(p, outputs, 0, 0, o, meet);
    dx[i] = to<T>(sum);
  }
}

struct Padded {};
struct Inside {};
struct Whole {};

__device__ inline int clamped(int value, int low, int high) { return value < low ? low : value > high ? high : value; }
// How many of the window's places along axis j lie below end.
__device__ inline int below(int start, int end, int j) {
  return clamped((end - start + dilation_of(j) - 1) / dilation_of(j) * (end > start), 0, kernel_size(j));
}
__device__ inline R divisor_of(const Place &o, const Place &inputs, Whole) { return (R)TAPS; }
__device__ inline R divisor_of(const Place &o, const Place &inputs, Padded) {
  R count = 1;
#pragma unroll
  for (int j = 0; j < SPATIAL; ++j) count *= (R)below(o[j] * stride_of(j) - pad_of(j), inputs[j] + pad_end_of(j), j);
  return count > (R)1 ? count : (R)1;
}
__device__ inline R divisor_of(const Place &o, const Place &inputs, Inside) {
  R count = 1;
#pragma unroll
  for (int j = 0; j < SPATIAL; ++j) {
    const int start = o[j] * stride_of(j) - pad_of(j);
    count *= (R)(below(start, inputs[j], j) - below(start, 0, j));
  }
  return count > (R)1 ? count : (R)1;  // where it is 0 so is the sum
}

// COUNTING: what a mean divides by; Padded, Inside or Whole.
#ifndef COUNTING
#define COUNTING Padded
#endif

extern "C" __global__ void pool_avg(const T *x, T *y, COUNT SPACE(WINDOW_PARAMETER)) {
  SIZES
  EACH(i, count) {
    LOCATE(output_plane, input_plane)
    const T *of = x + far;
    Place o;
    unravel(own, outputs, o);
    R sum = 0;
    auto meet = [&](int position, int) { sum += to<R>(of[(I)position * STEP]); };
    inputs_of<0>(o, inputs, 0, 0, meet);
    y[AT(i)] = to<T>(sum / divisor_of(o, inputs, COUNTING()));
  }
}

extern "C" __global__ void pool_avg_grad(const T *dy, T *dx, COUNT SPACE(WINDOW_PARAMETER)) {
  SIZES
  EACH(i, count) {
    LOCATE(input_plane, output_plane)
    Place p, at;
    unravel(own, inputs, p);
    R sum = 0;
    auto meet = [&](int output, int, const Place &o) {
      sum += to<R>(dy[AT(far + (I)output * STEP)]) / divisor_of(o, inputs, COUNTING());
    };
    outputs_of<0>(p, outputs, 0, 0, at, meet);
    dx[i] = to<T>(sum);
  }
}

// The first input whose running sum exceeds noise * sum; without one the last of the window.
extern "C" __global__ void pool_random(const T *__restrict__ x, const T *__restrict__ noise, T *__restrict__ y,
                                       int *__restrict__ index, COUNT SPACE(WINDOW_PARAMETER)) {
  SIZES
  EACH(i, count) {
    LOCATE(output_plane, input_plane)
    const T *of = x + far;
    Place o;
    unravel(own, outputs, o);
    R sum = 0;
    auto add = [&](int position, int) { sum += to<R>(of[(I)position * STEP]); };
    inputs_of<0>(o, inputs, 0, 0, add);
    const R threshold = to<R>(noise[i]) * sum;
    R running = 0, chosen = 0;
    int at = -1;
    bool taken = false;
    auto meet = [&](int position, int) {
      if (taken) return;
      chosen = to<R>(of[(I)position * STEP]);
      running += chosen;
      at = position;
      taken = running > threshold;
    };
    inputs_of<0>(o, inputs, 0, 0, meet);
    y[i] = to<T>(chosen);
    index[i] = at;
  }
}
