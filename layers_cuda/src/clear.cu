// Sets arrays to zero where *first is not 0; otherwise nothing but that number is read. Block b works on chunk b.
//
// FIRST   the type of first
// WORD    what is stored at once: every address and size is a multiple of it
// arrays  (address, words) of each;  chunks  (array, first word) of each block, which has at most CHUNK words
struct alignas(16) Bytes16 {
  unsigned v[4];
};

extern "C" __global__ void clear(const FIRST *first, const long long *arrays, const long long *chunks) {
  if (*first == (FIRST)0) return;
  const long long *row = arrays + 2 * chunks[2 * (long long)blockIdx.x];
  const long long begin = chunks[2 * (long long)blockIdx.x + 1], left = row[1] - begin;
  const int count = left < CHUNK ? (int)left : CHUNK;
  WORD *words = (WORD *)row[0] + begin;
  for (int i = threadIdx.x; i < count; i += blockDim.x) words[i] = WORD{};
}
