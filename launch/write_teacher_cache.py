"""Compute a teacher's soft targets for all rows of a student's run, and cache them on disk.

    deepspeed launch/write_teacher_cache.py --config launch/recipes/student_6x768.yaml \
        teacher.path=runs/teacher teacher.cache=runs/teacher_cache [key.path=value ...]

It logs the size of the folder first. Run the same command again to resume an interrupted pass. The
student reads the cache with the same key: launch/distill_student.py ...
teacher.cache=runs/teacher_cache
"""

try:
    from data_prep.config.loader import describe_keys, load_recipe
except ImportError as error:
    raise SystemExit(f"{error}: install Stillhouse with `pip install -e .` first.") from error

from launch.cli import recipe_parser, run_rank
from pretrain.distil.teacher_cache.run import TeacherCacheRecipe, write_teacher_caches
from pretrain.distributed import Cluster


def main() -> None:
    """Read the recipe and write."""
    keys = f"keys of a recipe, with their defaults:\n{describe_keys(TeacherCacheRecipe)}"
    arguments = recipe_parser(__doc__, keys).parse_intermixed_args()
    recipe = load_recipe(TeacherCacheRecipe, arguments.config, arguments.overrides)
    cluster = Cluster.join(recipe.run.world_size)
    try:
        write_teacher_caches(recipe, cluster)
    finally:
        cluster.leave()


if __name__ == "__main__":
    run_rank(main)
