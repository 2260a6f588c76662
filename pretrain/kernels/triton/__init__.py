"""The fused operations as Triton kernels, named as their references one folder up."""
