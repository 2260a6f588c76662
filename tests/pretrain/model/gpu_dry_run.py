"""Run a training step on fake tensors of a GPU; started by test_gpu_dry_run.py.

LD_PRELOAD=libgpu_stand_in.so python gpu_dry_run.py

Nothing is computed. Torch's own rules check shapes, types and devices, and any device-to-host
synchronisation is an error, because a fake tensor has no data.
"""

import os
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.runtime.jit import JITFunction

from pretrain.data.dummy_batch import dummy_batch
from pretrain.kernels.dispatch import choose_kernels
from pretrain.kernels.soft_cross_entropy import Head
from pretrain.kernels.triton.soft_cross_entropy import soft_cross_entropy
from pretrain.losses import attention_tiles
from pretrain.losses.attention_kl import relation_kl_sum
from pretrain.losses.attention_score_mse import score_mse_sum
from pretrain.losses.head_layout import QueryKey
from pretrain.losses.hidden import cosine_sum
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.losses.term import normalised_loss
from pretrain.model import Bert, BertShape
from pretrain.model.backend import Backend
from pretrain.model.compilation import compile_layers
from pretrain.model.dropout_rng import dropout_keys

GPU = torch.device("cuda", 0)
SHAPE = BertShape(
    vocab_size=1003,
    layers=2,
    width=64,
    heads=2,
    feed_forward=128,
    positions=64,
    dropout=0.1,
    pad_id=0,
    next_sentence=True,
)
launched: set[str] = set()


def record_launch(self: Any, *arguments: Any, grid: Any, warmup: bool, **keywords: Any) -> None:
    """Replace `JITFunction.run`: check the arguments and record the kernel."""
    tensors = [x for x in (*arguments, *keywords.values()) if isinstance(x, torch.Tensor)]
    assert all(tensor.device == GPU for tensor in tensors), self.fn.__name__
    assert all(size > 0 for size in grid), grid
    launched.add(f"{self.fn.__module__.rpartition('.')[2]}.{self.fn.__name__}")


def train(block: Any, dtype: torch.dtype) -> None:
    """Run forward and backward, then forward as in validation."""
    torch.set_default_dtype(dtype)
    with GPU:
        model = Bert(SHAPE)
    torch.set_default_dtype(torch.float32)
    model.backend = Backend(kernels=choose_kernels(block, "triton", GPU), attention="varlen")
    if block == "compiled":
        compile_layers(model, backend="aot_eager")
    batch = dummy_batch(SHAPE.vocab_size, 4, 32, 20).map_tensors(lambda tensor: tensor.to(GPU))
    for keys in keys_of(3, batch.rows):
        terms: Any = model(batch, pretraining_terms, keys)
        normalised_loss(terms, batch.counts).backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None and (gradient.device, gradient.dtype) == (GPU, dtype), name
    with torch.no_grad():
        model.eval()(batch, pretraining_terms)


def keys_of(micro_batches: int, rows: int) -> torch.Tensor:
    """Return dropout keys on the GPU; made on the CPU because pinned memory has no stand-in."""
    numbers = np.arange(micro_batches * rows).reshape(micro_batches, rows)
    return dropout_keys(0, 0, numbers, SHAPE.layers, torch.device("cpu")).to(GPU)


def distil(dtype: torch.dtype) -> None:
    """Run forward and backward through distillation losses, with a narrower student."""

    def zeros(*size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype, device=GPU)

    tokens, vocabulary = 4 * 32, 1003
    student_states = [zeros(tokens, 64).requires_grad_() for _ in range(2)]
    teacher_states = [zeros(tokens, 128) for _ in range(2)]
    ids = torch.ones(tokens, dtype=torch.int32, device=GPU)
    student = Head(
        zeros(20, 64).requires_grad_(), zeros(vocabulary, 64).requires_grad_(), zeros(vocabulary)
    )
    teacher = Head(zeros(20, 128), zeros(vocabulary, 128), zeros(vocabulary))
    labels = torch.zeros(20, dtype=torch.int64, device=GPU)
    losses = [
        soft_cross_entropy(student, teacher, labels, temperature=2.0).total,
        relation_kl_sum(student_states[0], teacher_states[0], 4, ids, 32),
        score_mse_sum(QueryKey(*student_states[:2]), QueryKey(*teacher_states[:2]), 4, ids, 32),
        cosine_sum(student_states[0], student_states[1].detach(), ids > 0),
    ]
    torch.stack(losses).sum().backward()
    for leaf in (*student_states, student.hidden_MD, student.weight_VD):
        assert leaf.grad is not None and leaf.grad.dtype == dtype


def main() -> None:
    JITFunction.run = record_launch  # type: ignore[method-assign]
    attention_tiles._compiled = lambda compare: torch.compile(  # type: ignore[assignment]
        compare, backend="aot_eager", dynamic=False, fullgraph=True
    )
    with FakeTensorMode(allow_non_fake_inputs=True):
        for dtype in (torch.bfloat16, torch.float16):
            for block in ("compiled", "triton", "reference"):
                train(block, dtype)
            distil(dtype)
    print(*sorted(launched), flush=True)
    os._exit(0)  # a normal exit would hang in the threads of the backward pass


if __name__ == "__main__":
    main()
