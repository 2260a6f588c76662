"""Batches and outputs from given logits, for losses that read nothing else."""

import torch

from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.kernels.dispatch import choose_kernels
from pretrain.model import Outputs


def make_batch(labels_M: torch.Tensor, directions: int = 1) -> Batch:
    """Return a batch with MLM labels, and NSP labels 0, 1 and none."""
    zeros = torch.zeros(8, dtype=torch.int64)
    return Batch(
        input_ids=zeros,
        token_types=zeros,
        positions=zeros,
        sample_ids=zeros.int() + 1,
        cu_seqlens=torch.tensor([0, 8]),
        masked_positions=torch.arange(len(labels_M)),
        mlm_labels=labels_M,
        cls_positions=torch.arange(3),
        nsp_labels=torch.tensor([0, 1, IGNORE_INDEX]),
        row_tokens=8,
        counts={},
        directions=directions,
    )


def make_outputs(logits_MV: torch.Tensor, nsp_logits_S2: torch.Tensor | None = None) -> Outputs:
    """Return outputs with the given logits: their decoder is the identity."""
    vocab_size = logits_MV.shape[1]
    return Outputs(
        hidden_ND=torch.zeros(8, vocab_size),
        masked_MD=logits_MV,
        nsp_logits_S2=nsp_logits_S2,
        decoder_VD=torch.eye(vocab_size, dtype=logits_MV.dtype),
        decoder_bias_V=torch.zeros(vocab_size, dtype=logits_MV.dtype),
        kernels=choose_kernels("reference", "reference", torch.device("cpu")),
    )
