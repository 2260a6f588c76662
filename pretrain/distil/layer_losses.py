"""Losses that compare layers, over the pairs of layers that a recipe names.

Each is a sum over real tokens, and over pairs of layers where there are several. Formulas and
sources are with the functions of pretrain/losses/.
Shapes: N positions, D width.
"""

import torch

from pretrain.data.batch import Batch
from pretrain.distil.loss_config import (
    AttentionDistributions,
    AttentionObjective,
    AttentionScores,
    FeatureMaps,
    HiddenCosine,
    LayerObjective,
    ProjectedObjective,
    Relations,
)
from pretrain.distil.stage_plan import LayerPairs, projection_name
from pretrain.losses.attention_kl import relation_kl_sum
from pretrain.losses.attention_score_mse import score_mse_sum
from pretrain.losses.attention_tiles import tiled_kl_sum
from pretrain.losses.feature_maps import feature_map_sums
from pretrain.losses.head_layout import QueryKey
from pretrain.losses.hidden import cosine_sum, mse_sum
from pretrain.model import Outputs
from pretrain.model.captured_states import Projected, States

_RELATION_FIELDS = {"qq": "query_ND", "kk": "key_ND", "vv": "value_ND"}


def layer_loss_sum(
    objective: LayerObjective,
    pairs: LayerPairs,
    outputs: Outputs,
    teacher_states: States,
    batch: Batch,
    heads: int,
) -> torch.Tensor:
    """Return the sum of one objective, a scalar in fp32.

    Args:
        objective: kind and options of the loss.
        pairs: layers of student and teacher.
        outputs: of the student.
        teacher_states: captured in the teacher forward pass.
        batch: input of both.
        heads: attention heads of both, where the objective compares head by head.
    """
    sums = []
    for student_layer, teacher_layer in pairs:
        if isinstance(objective, ProjectedObjective):
            student_ND = _project(outputs, student_layer, teacher_layer)
            teacher_ND = teacher_states.hidden[teacher_layer]
            sums.append(_hidden_sum(objective, student_ND, teacher_ND, batch.sample_ids > 0))
        else:
            student = outputs.states.attention[student_layer]
            teacher = teacher_states.attention[teacher_layer]
            sums.append(_attention_sum(objective, student, teacher, batch, heads))
    return torch.stack(sums).sum()


def _project(outputs: Outputs, student_layer: int, teacher_layer: int) -> torch.Tensor:
    """Return a student's hidden states in its teacher's width."""
    hidden_ND = outputs.states.hidden[student_layer]
    project = outputs.projections.get(projection_name(student_layer, teacher_layer))
    return hidden_ND if project is None else project(hidden_ND)


def _hidden_sum(
    objective: ProjectedObjective,
    student_ND: torch.Tensor,
    teacher_ND: torch.Tensor,
    is_token_N: torch.Tensor,
) -> torch.Tensor:
    if isinstance(objective, HiddenCosine):
        return cosine_sum(student_ND, teacher_ND, is_token_N)
    if isinstance(objective, FeatureMaps):
        parts = feature_map_sums(student_ND, teacher_ND, is_token_N)
        weights = objective.map_weight, objective.mean_weight, objective.variance_weight
        return torch.stack([w * part for w, part in zip(weights, parts, strict=True)]).sum()
    return mse_sum(student_ND, teacher_ND, is_token_N)


def _attention_sum(
    objective: AttentionObjective, student: Projected, teacher: Projected, batch: Batch, heads: int
) -> torch.Tensor:
    layout = batch.sample_ids, batch.row_tokens
    if isinstance(objective, Relations):
        fields = [_RELATION_FIELDS[name] for name in objective.relations]
        both = [(getattr(student, name), getattr(teacher, name)) for name in fields]
        return torch.stack([relation_kl_sum(*x, objective.heads, *layout) for x in both]).sum()
    if isinstance(objective, AttentionScores | AttentionDistributions):
        compare = score_mse_sum if isinstance(objective, AttentionScores) else tiled_kl_sum
        return compare(QueryKey(*student[:2]), QueryKey(*teacher[:2]), heads, *layout)
    return relation_kl_sum(student.value_ND, teacher.value_ND, heads, *layout)
