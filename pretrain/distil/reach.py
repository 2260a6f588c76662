"""Which parameters of a student a stage trains: those that its objectives reach backwards.

All others have a gradient of zero in that stage, and must stay where they are: with weight decay
and the momentum of an earlier stage an optimizer would move them all the same.
"""

from collections.abc import Iterator

from pretrain.distil.loss_config import (
    AttentionObjective,
    HardMlm,
    NextSentence,
    Objective,
    ProjectedObjective,
    Relations,
    SoftTargets,
    ValueRelations,
)
from pretrain.distil.stage_plan import StagePlan, projection_name
from pretrain.model import Bert

_ENCODER = "bert.embeddings.", "bert.encoder."
_WORDS = (*_ENCODER, "cls.predictions.")
_PAIRS = (*_ENCODER, "bert.pooler.", "cls.seq_relationship.")
_LETTERS = {"q": "query", "k": "key", "v": "value"}


def trained_parameters(plan: StagePlan, student: Bert) -> frozenset[str]:
    """Return the names of the parameters that a stage trains."""
    starts: set[str] = set()
    for objective, pairs in zip(plan.stage.objectives, plan.pairs, strict=True):
        if isinstance(objective, SoftTargets | HardMlm):
            starts.update(_WORDS)
        elif isinstance(objective, NextSentence):
            starts.update(_PAIRS)
        for own, theirs in pairs:
            starts.update(_of_layer(objective, own, student.shape.layers))
            starts.add(f"projections.{projection_name(own, theirs)}.")
    names = [name for name, _ in student.named_parameters()]
    return frozenset(name for name in names if name.startswith(tuple(starts)))


def _of_layer(objective: Objective, own: int, layers: int) -> Iterator[str]:
    """Give the beginnings of the names that an objective of layer `own` reaches."""
    yield "bert.embeddings."
    whole = own if isinstance(objective, ProjectedObjective) else own - 1
    for number in range(whole):
        yield f"bert.encoder.layer.{number}."
    if whole == layers:
        yield "bert.encoder.ln."
    if isinstance(objective, AttentionObjective):
        attention = f"bert.encoder.layer.{own - 1}.attention."
        yield f"{attention}ln."
        for letter in _compared(objective):
            yield f"{attention}self.{_LETTERS[letter]}."


def _compared(objective: AttentionObjective) -> set[str]:
    if isinstance(objective, Relations):
        return set("".join(objective.relations))
    return set("v" if isinstance(objective, ValueRelations) else "qk")
