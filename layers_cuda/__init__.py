"""netrun on an NVIDIA GPU. This package imports with no GPU, no driver and no CUDA wheels installed."""
