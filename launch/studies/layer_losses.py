"""Held-out losses that compare a student's layers with its teacher's: before and after training."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.studies.options import StudyRecipe
from launch.studies.trials import Trial, recipe_of
from pretrain.config.phases import phases_of
from pretrain.data.setup import open_inputs
from pretrain.distil.config import StudentRecipe
from pretrain.distil.loss_config import LayerObjective
from pretrain.distil.setup import set_up_distillation
from pretrain.distributed import Cluster
from pretrain.monitoring.logger import read_metrics
from pretrain.train.evaluation import ValidationSet

_PREFIX = "validation/loss_"


def read_layer_losses(run: Path) -> dict[str, float]:
    """Return the last held-out losses of the objectives of a run that compare layers.

    Names are those of objectives, such as `relations`; there are none where none compares layers.
    """
    logged = [_layer_losses(line) for line in read_metrics(run / "metrics.jsonl")]
    return next((losses for losses in reversed(logged) if losses), {})


def measure_untrained(recipe: StudentRecipe) -> dict[str, float]:
    """Return the same losses of a recipe's student before its first step."""
    cluster = Cluster.join()
    with tempfile.TemporaryDirectory() as plans:
        inputs = open_inputs(recipe, Path(plans), cluster)
        prepared = set_up_distillation(recipe, inputs, cluster)
        micro_rows = phases_of(recipe.train)[-1].micro_rows
        held_out = ValidationSet(inputs.validation, recipe.validation.rows, micro_rows, cluster)
        model = prepared.model.to(cluster.device)
        return _layer_losses(held_out.evaluate(model, prepared.task.validation(0)))


def find_layer_recipe(
    study: StudyRecipe, trials: Sequence[Trial], seed: int, **student: Any
) -> StudentRecipe | None:
    """Return the first method's recipe that begins by comparing layers, with another student.

    Args:
        study: of the trials.
        trials: all of them.
        seed: of the trial.
        student: keys of `student` to replace.
    """
    for trial in trials:
        recipe = recipe_of(study, trial)
        first = recipe.all_stages[0].objectives
        if trial.seed == seed and any(isinstance(o, LayerObjective) for o in first):
            changed = recipe.student.model_copy(update=student)
            return recipe.model_copy(update={"student": changed})
    return None


def _layer_losses(scores: Mapping[str, Any]) -> dict[str, float]:
    found = {k.removeprefix(_PREFIX): v for k, v in scores.items() if k.startswith(_PREFIX)}
    return {kind: loss for kind, loss in found.items() if not kind.startswith(("mlm", "nsp"))}
