"""Checks before a study starts: comparable methods, and a suitable teacher and corpus.

A study takes days; what would spoil its table is found before its first step.
"""

import json
from pathlib import Path
from typing import Any

from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError
from data_prep.manifest import write_json
from data_prep.tokenizers.folder import load_tokenizer
from launch.held_out import SCORED_TOKENS
from launch.studies.options import StudyRecipe
from launch.studies.trials import recipe_of, trials_of
from pretrain.config.run import identity_of
from pretrain.distil.config import StudentRecipe
from pretrain.distil.teacher import locate_teachers

# What makes a method: its objectives and its initialisation.
_OF_A_METHOD = ("objectives", "stages", "student.init", "student.layers")


def check_methods(study: StudyRecipe) -> None:
    """Refuse methods that differ in more than their objectives and initialisation.

    Raises:
        UserError: when a recipe is not valid, or has another corpus, budget, optimizer, mask or
            student than that of the first method.
    """
    by_name = {
        trial.method.name: _shared(recipe_of(study, trial))
        for trial in trials_of(study)
        if trial.seed == study.seeds[0]
    }
    first = study.methods[0].name
    for name, shared in by_name.items():
        for key, value in shared.items():
            if value != by_name[first][key]:
                raise UserError(
                    f"The method {name} has {key} {value}, but {first} has {by_name[first][key]}: "
                    "a study compares objectives and initialisation; all else must be the "
                    "same."
                )


def _shared(recipe: StudentRecipe) -> dict[str, Any]:
    keys = {"corpus.path": str(recipe.corpus.path), **identity_of(recipe)}
    return {key: value for key, value in keys.items() if key not in _OF_A_METHOD}


def check_inputs(study: StudyRecipe) -> None:
    """Refuse an unsuitable teacher or corpus, or others than the study was started with.

    Raises:
        UserError: for a teacher that is still training, has another tokenizer or too few
            positions; a corpus without held-out documents; or a study folder whose trials had
            another teacher or corpus.
    """
    recipe = recipe_of(study, next(trials_of(study)))
    corpus = Corpus.open(recipe.corpus.path, "validation")
    (teacher,) = locate_teachers([study.teacher], load_tokenizer(recipe.tokenizer.path))
    longest = max([SCORED_TOKENS, *(task.max_tokens for task in study.tasks)])
    if teacher.shape.positions < longest:
        raise UserError(
            f"{study.teacher} has {teacher.shape.positions} positions, but rows of {longest} "
            "tokens are scored: take another teacher, or a smaller max_tokens of the tasks."
        )
    _keep_inputs(study.path, {"teacher": teacher.sha256, "corpus": corpus.fingerprint})


def _keep_inputs(folder: Path, inputs: dict[str, str]) -> None:
    """Write what a study starts with, or compare it: finished trials are not run again."""
    path = folder / "inputs.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, inputs)
        return
    for name, kept in json.loads(path.read_text(encoding="utf-8")).items():
        if inputs[name] != kept:
            raise UserError(
                f"The study {folder} was started with the {name} {kept[:16]}, not "
                f"{inputs[name][:16]}: give another path, or the {name} of then."
            )
