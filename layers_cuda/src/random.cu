// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), word for word netrun/random.py.
// OUT: the element type of y. BERNOULLI 1: u < p as 1 or 0, else u.
#include "common.cuh"

__device__ inline void philox(unsigned (&x)[4], unsigned key0, unsigned key1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned long long p0 = 0xD2511F53ull * x[0], p1 = 0xCD9E8D57ull * x[2];
    x[0] = (unsigned)(p1 >> 32) ^ x[1] ^ key0;
    x[2] = (unsigned)(p0 >> 32) ^ x[3] ^ key1;
    x[1] = (unsigned)p1;
    x[3] = (unsigned)p0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// A thread makes the four words of a block.
extern "C" __global__ void random_numbers(const long long *__restrict__ counter, OUT *__restrict__ y, const I count,
                                  const float p, const unsigned key0, const unsigned key1, const unsigned stream) {
  const unsigned long long now = (unsigned long long)*counter;
  EACH(block, quotient(count + 3, (I)4)) {
    unsigned word[4] = {(unsigned)block, stream, (unsigned)now, (unsigned)(now >> 32)};
    philox(word, key0, key1);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float u = (float)(word[j] >> 8) * 5.9604644775390625e-08f;  // 2^-24
#if BERNOULLI
      const float value = u < p ? 1.0f : 0.0f;
#else
      const float value = u;
#endif
      if (block * 4 + j < count) y[block * 4 + j] = to<OUT>(value);
    }
  }
}
