"""Euclidean norms of tensors, right to a few roundings of fp32 at any size.

On a CPU torch adds the squares of a whole tensor in eight fp32 sums, to which the squares are soon
too small: at 23 million equal elements the norm is 1.4 % too small (pytorch/pytorch #169237). Here
blocks have sums of their own, which are added up in fp64; it takes less time, too. On a GPU torch
has such sums: of each chunk of 65,536 elements and each of its threads (ForeachReduceOp.cu).
Shapes: T tensors.
"""

from collections.abc import Sequence

import torch

_BLOCK = 1024
_FEW = 4 * _BLOCK  # elements that one sum can add with an error of 1e-6


def norms_of(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the norm of each tensor [T], without device-to-host synchronisation.

    All have one type; norms are in fp32, or in fp64 where they are.
    """
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    if tensors[0].is_cuda:
        return torch.stack(torch._foreach_norm(list(tensors), 2, dtype))
    return torch.stack([_norm_by_blocks(x.reshape(-1), dtype) for x in tensors])


def global_norm(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the norm of all tensors as one vector, a scalar in fp32; 0 of none."""
    if not tensors:
        return torch.zeros(())
    return torch.linalg.vector_norm(norms_of(tensors), dtype=torch.float64).float()


def _norm_by_blocks(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if len(x) <= _FEW:
        return torch.linalg.vector_norm(x, dtype=dtype)
    whole = len(x) - len(x) % _BLOCK
    blocks = torch.linalg.vector_norm(x[:whole].view(-1, _BLOCK), dim=1, dtype=dtype)
    rest = torch.linalg.vector_norm(x[whole:], dtype=dtype)
    parts = torch.cat([blocks, rest[None]])
    return torch.linalg.vector_norm(parts, dtype=torch.float64).to(dtype)
