"""The parameters of a student that a stage trains: those on the backward path of its objectives.

All others have a gradient of zero in that stage and must not change. With weight decay and the
momentum of an earlier stage an optimizer would update them all the same.
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
_MLM = (*_ENCODER, "cls.predictions.")
_NSP = (*_ENCODER, "bert.pooler.", "cls.seq_relationship.")
_PROJECTIONS = {"q": "query", "k": "key", "v": "value"}


def trained_parameters(plan: StagePlan, student: Bert) -> frozenset[str]:
    """Return the names of the parameters that a stage trains."""
    prefixes: set[str] = set()
    for objective, pairs in zip(plan.stage.objectives, plan.layer_pairs, strict=True):
        if isinstance(objective, SoftTargets | HardMlm):
            prefixes.update(_MLM)
        elif isinstance(objective, NextSentence):
            prefixes.update(_NSP)
        for student_layer, teacher_layer in pairs:
            prefixes.update(_layer_prefixes(objective, student_layer, student.shape.layers))
            prefixes.add(f"projections.{projection_name(student_layer, teacher_layer)}.")
    names = [name for name, _ in student.named_parameters()]
    return frozenset(name for name in names if name.startswith(tuple(prefixes)))


def _layer_prefixes(objective: Objective, layer: int, layers: int) -> Iterator[str]:
    """Yield the name prefixes of the parameters that an objective on `layer` trains."""
    yield "bert.embeddings."
    whole = layer if isinstance(objective, ProjectedObjective) else layer - 1
    for number in range(whole):
        yield f"bert.encoder.layer.{number}."
    if whole == layers:
        yield "bert.encoder.ln."
    if isinstance(objective, AttentionObjective):
        attention = f"bert.encoder.layer.{layer - 1}.attention."
        yield f"{attention}ln."
        for letter in _compared_projections(objective):
            yield f"{attention}self.{_PROJECTIONS[letter]}."


def _compared_projections(objective: AttentionObjective) -> set[str]:
    if isinstance(objective, Relations):
        return set("".join(objective.relations))
    return set("v" if isinstance(objective, ValueRelations) else "qk")
