"""A batch: the tensors of one micro-batch, and several of them stacked for transport."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

IGNORE_INDEX = -100  # label of a position without a target, as in torch and transformers


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch of packed rows, flattened: N = rows * row_tokens tokens.

    M masked tokens, S sentence pairs, C sequences. Lists whose lengths vary are padded to few
    lengths, so that compiled graphs and allocations repeat: positions with 0, labels with
    `IGNORE_INDEX`, `cu_seqlens` with empty sequences. That changes no loss and no count.

    With `mask.bidirectional` the second half of the rows holds each sample reversed: position
    N/2 + i mirrors position i within its sample, and masked token M/2 + j is masked token j
    again. The losses of both directions are summed, so the denominators in `counts` are those of
    one direction.
    """

    input_ids: torch.Tensor  # [N] int64, [PAD] in padding
    token_types: torch.Tensor  # [N] int64, 1 in the second segment
    positions: torch.Tensor  # [N] int64, restarts with every sample
    sample_ids: torch.Tensor  # [N] int32, 1, 2, ... within a row; 0 is padding
    cu_seqlens: torch.Tensor  # [C + 1] int32, boundaries of sequences: samples, padding of rows
    masked_positions: torch.Tensor  # [M] int64
    mlm_labels: torch.Tensor  # [M] int64
    cls_positions: torch.Tensor  # [S] int64, [CLS] of samples with two segments
    nsp_labels: torch.Tensor  # [S] int64
    row_tokens: int
    counts: dict[str, int]  # masked tokens, samples, tokens without padding; squares: Σ length²
    directions: int = 1
    # Cached soft targets of the masked tokens, see distil/teacher_cache/targets.py; W ids each.
    cached_ids: torch.Tensor | None = None  # [M, W] int64
    cached_values: torch.Tensor | None = None  # [M, W]
    cached_rest: torch.Tensor | None = None  # [M]

    @property
    def rows(self) -> int:
        """Number of rows, those of all directions."""
        return len(self.input_ids) // self.row_tokens

    @property
    def mlm_targets(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and labels of the masked tokens, list padding removed."""
        real = self.mlm_labels != IGNORE_INDEX
        return self.masked_positions[real], self.mlm_labels[real]

    @property
    def nsp_targets(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions of [CLS] and NSP labels of the sentence pairs, list padding removed."""
        real = self.nsp_labels != IGNORE_INDEX
        return self.cls_positions[real], self.nsp_labels[real]

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device; to a GPU from pinned memory, without blocking the host."""
        if device.type == "cpu":
            return self
        return self.map_tensors(lambda tensor: tensor.pin_memory().to(device, non_blocking=True))

    def map_tensors(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        """Return the batch with a function applied to each of its tensors."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: function(value)
            for name, value in values.items()
            if isinstance(value, torch.Tensor)
        }
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True)
class BatchStack:
    """K micro-batches of one shape, stacked field by field: a rank's share of a step.

    Loader workers send this form: a tensor costs a file descriptor on its way to the training
    process and a copy into pinned memory, so there is one for each field, whatever K is.
    """

    tensors: dict[str, torch.Tensor]  # the tensor fields of `Batch` by name, each [K, ...]
    counts: list[dict[str, int]]  # of each micro-batch, [K]
    row_tokens: int
    directions: int

    def pin_memory(self) -> "BatchStack":
        """Copy into page-locked memory; called by the `DataLoader`."""
        return replace(
            self, tensors={name: tensor.pin_memory() for name, tensor in self.tensors.items()}
        )

    def with_tensors(self, **tensors: torch.Tensor) -> "BatchStack":
        """Return the stack with further fields of `Batch`, each [K, ...]."""
        return replace(self, tensors=self.tensors | tensors)

    def unstack(self) -> list[Batch]:
        """Return the micro-batches, whose tensors are views."""
        return [
            Batch(
                **{name: tensor[index] for name, tensor in self.tensors.items()},
                row_tokens=self.row_tokens,
                counts=counts,
                directions=self.directions,
            )
            for index, counts in enumerate(self.counts)
        ]
