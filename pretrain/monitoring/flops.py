"""How many floating-point operations a step must do, whatever computes it.

A matrix product of [N, A] and [A, B] is 2·N·A·B operations, and its backward pass twice as many.
Counted are the products alone, forward and backward, each once: recomputing activations is no
useful work, nor is padding. With D width, F feed-forward, L layers, V vocabulary:

    layers      6 · L · (4·D² + 2·D·F)      each real token
    attention   12 · L · D · s²             each sample of s tokens
    words       6 · (D² + D·V)              each masked token
    sentences   6 · (D² + 2·D)              each sample

This is the convention of the PaLM paper (arXiv 2204.02311, appendix B), with the heads at the
places where a BERT needs them, and attention within samples instead of whole rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pretrain.model import BertShape

_BACKWARD_TOO = 3  # the forward pass once, and the backward pass at twice its cost


class TeacherPass(NamedTuple):
    """A model that is asked beside the one that learns: its layers, and whether for words too."""

    shape: BertShape
    has_mlm_head: bool


@dataclass(frozen=True, kw_only=True)
class StepFlops:
    """What the steps of a run cost: a model that is trained, and those that are asked beside it.

    `directions` is 2 where each sample is shown reversed as well.
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
            asked: models that are asked in it.
            logits_at_all_tokens: whether words are compared at all tokens, beside the masked ones.
        """
        if logits_at_all_tokens:
            counts = {**counts, "masked": counts["masked"] + counts["tokens"]}
        flops = training_flops(self.trained, counts, self.directions)
        for shape, has_mlm_head in teacher_passes:
            # Of layers alone, neither head is computed.
            of_layers = counts if has_mlm_head else {**counts, "masked": 0, "samples": 0}
            flops += forward_flops(shape, of_layers, self.directions)
        return flops


def training_flops(shape: BertShape, counts: Mapping[str, int], directions: int = 1) -> int:
    """Return the operations of a forward and backward pass.

    Args:
        shape: of the model.
        counts: `tokens`, `squares`, `masked` and `samples`, as `Batch.counts` has them, summed.
        directions: 2 where each sample is shown reversed as well; counts are of one direction.
    """
    return _BACKWARD_TOO * forward_flops(shape, counts, directions)


def forward_flops(shape: BertShape, counts: Mapping[str, int], directions: int = 1) -> int:
    """Return the operations of a forward pass, as of a teacher who is only asked."""
    width = shape.width
    layer = 2 * (4 * width**2 + 2 * width * shape.feed_forward)
    words = 2 * (width**2 + width * shape.vocab_size)
    flops = directions * (
        shape.layers * (layer * counts["tokens"] + 4 * width * counts["squares"])
        + words * counts["masked"]
    )
    if shape.next_sentence:
        # Next sentences are asked for in the forward direction alone.
        flops += 2 * (width**2 + 2 * width) * counts["samples"]
    return flops
