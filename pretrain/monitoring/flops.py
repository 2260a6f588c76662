"""The floating-point operations that a step needs, whatever computes it.

A matrix product of [N, A] and [A, B] is 2·N·A·B operations, and its backward pass twice as many.
Only the products are counted, forward and backward, each once: neither the second forward pass of
activation checkpointing nor padding is useful work. With D width, F feed-forward, L layers,
V vocabulary:

    layers      6 · L · (4·D² + 2·D·F)      each real token
    attention   12 · L · D · s²             each sample of s tokens
    MLM head    6 · (D² + D·V)              each masked token
    NSP head    6 · (D² + 2·D)              each sample

This is the convention of the PaLM paper (arXiv 2204.02311, appendix B), with the heads only at the
positions where a BERT needs them, and attention within samples instead of whole rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pretrain.model import BertShape

_FORWARD_AND_BACKWARD = 3  # the forward pass once, and the backward pass at twice its cost


class TeacherPass(NamedTuple):
    """The forward pass of a teacher: its shape, and whether its MLM head is computed too."""

    shape: BertShape
    has_mlm_head: bool


@dataclass(frozen=True, kw_only=True)
class StepFlops:
    """The operations of the steps of a run, for the trained model and its teachers.

    `directions` is 2 where each sample is processed reversed as well.
    """

    trained: BertShape
    directions: int = 1

    def of_step(
        self,
        counts: Mapping[str, int],
        teacher_passes: Sequence[TeacherPass] = (),
        logits_at_all_tokens: bool = False,
    ) -> int:
        """Return the operations of a step.

        Args:
            counts: of its batches over all ranks.
            teacher_passes: forward passes of teachers in it.
            logits_at_all_tokens: whether logits are computed at all tokens too, not only at masked
                ones.
        """
        if logits_at_all_tokens:
            counts = {**counts, "masked": counts["masked"] + counts["tokens"]}
        flops = training_flops(self.trained, counts, self.directions)
        for shape, has_mlm_head in teacher_passes:
            # Without the MLM head, neither head is computed.
            of_layers = counts if has_mlm_head else {**counts, "masked": 0, "samples": 0}
            flops += forward_flops(shape, of_layers, self.directions)
        return flops


def training_flops(shape: BertShape, counts: Mapping[str, int], directions: int = 1) -> int:
    """Return the operations of a forward and backward pass.

    Args:
        shape: of the model.
        counts: `tokens`, `squares`, `masked` and `samples`, as `Batch.counts` has them, summed.
        directions: 2 where each sample is processed reversed as well; counts are of one direction.
    """
    return _FORWARD_AND_BACKWARD * forward_flops(shape, counts, directions)


def forward_flops(shape: BertShape, counts: Mapping[str, int], directions: int = 1) -> int:
    """Return the operations of a forward pass, such as that of a teacher."""
    width = shape.width
    layer = 2 * (4 * width**2 + 2 * width * shape.feed_forward)
    mlm_head = 2 * (width**2 + width * shape.vocab_size)
    flops = directions * (
        shape.layers * (layer * counts["tokens"] + 4 * width * counts["squares"])
        + mlm_head * counts["masked"]
    )
    if shape.next_sentence:
        # The NSP head is computed in the forward direction alone.
        flops += 2 * (width**2 + 2 * width) * counts["samples"]
    return flops
