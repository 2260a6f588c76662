"""Distil a student from a teacher, on the same general corpus, under DeepSpeed.

    deepspeed launch/distill_student.py --config launch/recipes/student_6x768.yaml \
        teacher.path=runs/teacher [key.path=value ...]

It creates the run folder `run.path`, and resumes it, as launch/train_teacher.py does.
"""

try:
    from data_prep.config.loader import describe_keys, load_recipe
except ImportError as error:
    raise SystemExit(f"{error}: install Stillhouse with `pip install -e .` first.") from error

from launch.cli import recipe_parser, run_rank
from pretrain.distil.config import StudentRecipe
from pretrain.distil.setup import set_up_distillation
from pretrain.train.run import execute


def main() -> None:
    """Read the recipe and distil."""
    keys = f"keys of a recipe, with their defaults:\n{describe_keys(StudentRecipe)}"
    arguments = recipe_parser(__doc__, keys).parse_intermixed_args()
    recipe = load_recipe(StudentRecipe, arguments.config, arguments.overrides)

    execute(recipe, lambda inputs, cluster: set_up_distillation(recipe, inputs, cluster))


if __name__ == "__main__":
    run_rank(main)
