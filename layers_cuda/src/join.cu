// Tensors side by side. PARTS(X): X(0) X(1) ... the parts; WORD as in move.cu. A row of the whole is one row of each
// part after another; widths are in words.
#include "common.cuh"

struct alignas(16) Bytes16 {
  unsigned long long a, b;
};

#define IN_PARAMETER(j) const WORD *__restrict__ part##j, const I width##j,
#define OUT_PARAMETER(j) WORD *__restrict__ part##j, const I width##j,
#define TAKE(j)                                                     \
  if (c >= 0 && c < width##j) word = part##j[row * width##j + c];   \
  c -= width##j;
#define GIVE(j)                                                     \
  if (c >= 0 && c < width##j) part##j[row * width##j + c] = word;   \
  c -= width##j;

extern "C" __global__ void concat(PARTS(IN_PARAMETER) WORD *__restrict__ y, const I count, const I pitch,
                                  const I begin, const I width) {
  EACH(i, count) {
    const I row = quotient(i, width);
    I c = i - row * width;
    const I at = row * pitch + begin + c;
    WORD word = {};
    PARTS(TAKE)
    y[at] = word;
  }
}

extern "C" __global__ void split(PARTS(OUT_PARAMETER) const WORD *__restrict__ x, const I count, const I pitch,
                                 const I begin, const I width) {
  EACH(i, count) {
    const I row = quotient(i, width);
    I c = i - row * width;
    const WORD word = x[row * pitch + begin + c];
    PARTS(GIVE)
  }
}
