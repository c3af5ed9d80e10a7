"""CUDA kernels of netrun. This package imports with no GPU, no driver and no CUDA wheels installed."""
