r"""Compute a teacher's soft targets for all rows of a student's run, and cache them on disk.

    deepspeed launch/write_teacher_cache.py --config launch/recipes/student_6x768.yaml \
        teacher.path=runs/teacher teacher.cache=runs/teacher_cache [key.path=value ...]

It prints first how large the folder will be. The same command resumes a pass that was stopped. The
student's run then takes the same keys, teacher.cache among them.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where it is not installed

from launch.command_line.packages import packages_required

with packages_required():
    from launch.command_line.errors import run_rank
    from launch.command_line.recipe import read_recipe, recipe_parser
    from pretrain.distil.teacher_cache.run import TeacherCacheRecipe, write_teacher_caches
    from pretrain.distributed import Cluster

_COMMON_KEYS = (
    "corpus.path tokenizer.path teacher.path teacher.cache teacher_cache.kind teacher_cache.count "
    "train.steps train.batch_rows train.row_tokens train.micro_rows train.precision"
)


def main() -> None:
    """Read the recipe and write."""
    parser = recipe_parser(__doc__, TeacherCacheRecipe, _COMMON_KEYS, "student_6x768.yaml")
    recipe = read_recipe(TeacherCacheRecipe, parser.parse_intermixed_args())
    cluster = Cluster.join(recipe.run.world_size)
    try:
        write_teacher_caches(recipe, cluster)
    finally:
        cluster.leave()


if __name__ == "__main__":
    run_rank(main)
