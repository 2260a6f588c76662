"""Sums of the objectives that compare layers, over the pairs of layers that a recipe names.

Each is a sum over real tokens; of several pairs of layers it is the sum. Formulas and sources are
with the functions of `objectives/`.
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
from pretrain.distil.stage_plan import Pairs, projection_name
from pretrain.losses.attention_distributions import attention_kl_sum, value_relation_kl_sum
from pretrain.losses.attention_score_mse import score_mse_sum
from pretrain.losses.feature_maps import feature_map_sums
from pretrain.losses.hidden import cosine_sum, mse_sum
from pretrain.losses.relations import relation_kl_sum
from pretrain.model import Outputs
from pretrain.model.captured_states import Projected, States


def layer_sum(
    objective: LayerObjective,
    pairs: Pairs,
    outputs: Outputs,
    taught: States,
    batch: Batch,
    heads: int,
) -> torch.Tensor:
    """Return the sum of one objective, in fp32.

    Args:
        objective: what is compared, and how.
        pairs: layers of student and teacher.
        outputs: of the student.
        taught: states of the teacher.
        batch: what both were given.
        heads: of their attention, where both must have as many.
    """
    sums = []
    for own, theirs in pairs:
        if isinstance(objective, ProjectedObjective):
            states = _project(outputs, own, theirs), taught.hidden[theirs]
            sums.append(_of_states(objective, *states, batch.sample_ids > 0))
        else:
            layers = outputs.states.attention[own], taught.attention[theirs]
            sums.append(_of_attention(objective, *layers, batch, heads))
    return torch.stack(sums).sum()


def _project(outputs: Outputs, own: int, theirs: int) -> torch.Tensor:
    """Return a student's states in its teacher's width."""
    hidden_ND = outputs.states.hidden[own]
    project = outputs.projections.get(projection_name(own, theirs))
    return hidden_ND if project is None else project(hidden_ND)


def _of_states(
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


def _of_attention(
    objective: AttentionObjective, student: Projected, teacher: Projected, batch: Batch, heads: int
) -> torch.Tensor:
    rows = batch.sample_ids, batch.row_tokens
    if isinstance(objective, Relations):
        fields = {"qq": "query_ND", "kk": "key_ND", "vv": "value_ND"}
        compared = [fields[name] for name in objective.relations]
        both = [(getattr(student, name), getattr(teacher, name)) for name in compared]
        return torch.stack([relation_kl_sum(*x, objective.heads, *rows) for x in both]).sum()
    if isinstance(objective, AttentionScores | AttentionDistributions):
        compare = score_mse_sum if isinstance(objective, AttentionScores) else attention_kl_sum
        return compare(*student[:2], *teacher[:2], heads, *rows)
    return value_relation_kl_sum(student.value_ND, teacher.value_ND, heads, *rows)
