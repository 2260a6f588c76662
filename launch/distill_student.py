r"""Distil a student from a teacher, on the same general corpus, under DeepSpeed.

    deepspeed launch/distill_student.py --config launch/recipes/student_6x768.yaml \
        teacher.path=runs/teacher [key.path=value ...]

It creates the run folder `run.path`, and resumes it, as launch/train_teacher.py does.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where it is not installed

from launch.command_line.packages import packages_required

with packages_required():
    from launch.command_line.errors import run_rank
    from launch.command_line.recipe import read_recipe, recipe_parser
    from pretrain.distil.config import StudentRecipe
    from pretrain.distil.setup import set_up_distillation
    from pretrain.train.run import execute

_COMMON_KEYS = (
    "run.path corpus.path tokenizer.path teacher.path student.layers student.init train.steps "
    "train.seed train.batch_rows train.row_tokens train.micro_rows train.precision optim.lr "
    "checkpoint.every_steps checkpoint.keep log.every_steps deepspeed.config"
)


def main() -> None:
    """Read the recipe and distil."""
    parser = recipe_parser(__doc__, StudentRecipe, _COMMON_KEYS, "student_6x768.yaml")
    recipe = read_recipe(StudentRecipe, parser.parse_intermixed_args())

    execute(recipe, lambda inputs, cluster: set_up_distillation(recipe, inputs, cluster))


if __name__ == "__main__":
    run_rank(main)
