"""Train one student in several ways, several times each, and put them in one table.

    python launch/study.py --config launch/recipes/study_simplewiki.yaml --json study.json

All methods share a teacher, a corpus, a budget and an optimizer. Each trained student is published,
scored on held-out words, and fine-tuned on the tasks by plain transformers. What is done is kept: a
study that was stopped goes on, and studies of different `seeds` can share a folder. `--dry-run`
prints the commands of the trainings, for a cluster's queue.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where it is not installed

from launch.command_line.packages import packages_required

with packages_required():
    from launch.command_line.errors import run_rank
    from launch.command_line.recipe import read_recipe, recipe_parser
    from launch.studies.options import StudyRecipe
    from launch.studies.tasks import read_task
    from launch.studies.trials import command_of, shown, train_trial, trials_of

_COMMON_KEYS = "path teacher recipe seeds launcher held_out_rows"


def main() -> None:
    """Train, score, and print the table."""
    arguments = _parser().parse_intermixed_args()
    study = read_recipe(StudyRecipe, arguments)
    # Imported here so that --help and misspelt keys are answered at once.
    from launch.benchmarks.report import write_findings
    from launch.downstream.training import rows_of_device
    from launch.studies.fairness import check_inputs, check_methods
    from launch.studies.scores import score_study
    from launch.studies.summary import render_study
    from pretrain.distributed import refuse_ranks

    refuse_ranks("launch/study.py starts the ranks of its trainings itself")
    check_methods(study)
    trials = list(trials_of(study))
    if arguments.dry_run:
        print("\n".join(shown(command_of(study, trial)) for trial in trials))
        return
    check_inputs(study)
    for options in study.tasks:
        rows_of_device(options.batch_rows, f"batch_rows of the task {options.name}")
    tasks = [read_task(task) for task in study.tasks]
    for trial in trials:
        train_trial(study, trial)
    findings = score_study(study, trials, tasks)
    print(render_study(findings))
    if arguments.json:
        write_findings(arguments.json, findings)


def _parser() -> argparse.ArgumentParser:
    parser = recipe_parser(__doc__, StudyRecipe, _COMMON_KEYS, "study_simplewiki.yaml")
    parser.add_argument("--json", type=Path, help="write the report there")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the commands that train, and stop"
    )
    return parser


if __name__ == "__main__":
    run_rank(main)
