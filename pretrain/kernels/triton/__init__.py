"""The fused operations as Triton kernels; the only folder that imports triton."""
