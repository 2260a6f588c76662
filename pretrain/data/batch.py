"""A batch: what the model is given, as tensors. How one is made is told in batches.py."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

IGNORE_INDEX = -100  # label of a position without a target, as in torch and transformers


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch of packed rows, laid flat: N = rows * row_tokens places.

    M masked tokens, S samples of two segments, C sequences. Their lists are filled up, so that
    lengths take few values and nothing that depends on them is made anew for every batch: with
    place 0 and the label `IGNORE_INDEX`, with sequences of no tokens. That changes no loss or
    count.

    With `mask.bidirectional` the second half of the rows shows each sample reversed: place
    N/2 + i lies in the mirror of the row of place i, and masked token M/2 + j is masked token j
    again. Losses of the two directions are added up, so what they are divided by is counted in
    one of them.
    """

    input_ids: torch.Tensor  # [N] int64, [PAD] where no sample lies
    token_types: torch.Tensor  # [N] int64, 1 in the second segment
    positions: torch.Tensor  # [N] int64, restarts with every sample
    sample_ids: torch.Tensor  # [N] int32, 1, 2, ... within a row; 0 is padding
    cu_seqlens: torch.Tensor  # [C + 1] int32, where sequences begin and end: samples, rows' padding
    masked_positions: torch.Tensor  # [M] int64
    mlm_labels: torch.Tensor  # [M] int64
    cls_positions: torch.Tensor  # [S] int64, places of the [CLS] of samples with two segments
    nsp_labels: torch.Tensor  # [S] int64
    row_tokens: int
    counts: dict[str, int]  # masked tokens, samples, real tokens; squares: Σ s² of their lengths
    directions: int = 1
    # A stored teacher's answers to the masked tokens, see signal/targets.py, where a run has them.
    cached_ids: torch.Tensor | None = None  # [M, W] int64, W words of each
    cached_values: torch.Tensor | None = None  # [M, W]
    cached_rest: torch.Tensor | None = None  # [M]

    @property
    def mlm_targets(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and labels of the masked tokens, without fill: ([m], [m])."""
        real = self.mlm_labels != IGNORE_INDEX
        return self.masked_positions[real], self.mlm_labels[real]

    @property
    def nsp_targets(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions of [CLS] and NSP labels of the sentence pairs, without fill: ([s], [s])."""
        real = self.nsp_labels != IGNORE_INDEX
        return self.cls_positions[real], self.nsp_labels[real]

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device; to a GPU from pinned memory, without blocking the host."""
        if device.type == "cpu":
            return self
        return self.map_tensors(lambda tensor: tensor.pin_memory().to(device, non_blocking=True))

    def map_tensors(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        """Return the batch with a function applied to each of its tensors."""
        tensors = tensors_of(self).items()
        return replace(self, **{name: function(tensor) for name, tensor in tensors})  # type: ignore[arg-type]


def tensors_of(batch: Any) -> dict[str, torch.Tensor]:
    """Return the tensors among the fields of a dataclass, by name."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
