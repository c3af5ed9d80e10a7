// Between float and a 16-bit type. STORAGE: __half or __nv_bfloat16.
#ifndef CUDA_CPU
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif
#ifndef STORAGE
#define STORAGE __half
#endif

extern "C" __global__ void narrow(const float* x, STORAGE* y, long long count) {
  long long stride = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) y[i] = (STORAGE)x[i];
}

extern "C" __global__ void widen(const STORAGE* x, float* y, long long count) {
  long long stride = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) y[i] = (float)x[i];
}
