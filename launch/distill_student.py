"""Distil a student from a teacher, on the same general corpus, under DeepSpeed.

    deepspeed launch/distill_student.py --config launch/recipes/student_6x768.yaml \
        teacher.path=runs/teacher [key.path=value ...]

It makes the folder `run.path`, like launch/train_teacher.py, and continues it the same way.
"""

from typing import Any

try:
    from data_prep.recipe import describe_keys, load_recipe
except ImportError as error:
    raise SystemExit(f"{error}: install Stillhouse with `pip install -e .` first.") from error

from launch.cli import recipe_parser, run_rank
from pretrain.cluster import Cluster
from pretrain.config import StudentRecipe
from pretrain.inputs import Inputs
from pretrain.model import Bert
from pretrain.model.execution import choose_execution
from pretrain.run import execute
from pretrain.students import check_positions, choose_layers, make_student
from pretrain.tasks import DistillationTask, Task
from pretrain.teacher import Teacher, locate_teacher
from pretrain.weights import load_located


def main() -> None:
    """Read the recipe and distil."""
    keys = f"keys of a recipe, with their defaults:\n{describe_keys(StudentRecipe)}"
    arguments = recipe_parser(__doc__, keys).parse_intermixed_args()
    recipe = load_recipe(StudentRecipe, arguments.config, arguments.overrides)

    def prepare(inputs: Inputs, cluster: Cluster) -> tuple[Bert, Task, dict[str, Any]]:
        tokenizer = inputs.tokenizer.fingerprint
        located = cluster.on_main(lambda: locate_teacher(recipe.teacher.path, tokenizer))
        trained = load_located(located)
        check_positions(trained.model.shape, recipe.train.longest_row)
        layers = choose_layers(recipe.student.layers, trained.model.shape.layers)
        student = make_student(trained.model, layers, recipe.student.init, recipe.train.seed)
        shape, device = trained.model.shape, cluster.device
        execution = choose_execution(recipe.kernels, recipe.train, shape, device)
        teacher = Teacher(trained.model, device, recipe.train.precision, execution)
        facts = {
            "kind": "student",
            "teacher_weights": located.sha256,
            "teacher_layers": layers,
            "teacher_parameters": trained.model.count_parameters(),
            "teacher_validation": trained.facts.get("validation", {}),
        }
        return student, DistillationTask(teacher, recipe.loss), facts

    execute(recipe, prepare)


if __name__ == "__main__":
    run_rank(main)
