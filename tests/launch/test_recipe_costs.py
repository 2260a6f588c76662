"""The expected cost in the headers of recipes of real size, beside that of the formula.

Every row is one sample that fills it, which costs the most: 15 % of its tokens are masked, and ids
are BERT's 30,522.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from data_prep.config.loader import load_recipe
from pretrain.config.phases import phase_at, phases_of
from pretrain.config.run import RunRecipe, TeacherRecipe
from pretrain.distil.config import StudentRecipe
from pretrain.distil.loss_config import NextSentence, SoftTargets
from pretrain.distil.stage_plan import StagePlan, plan_stages, stages_of
from pretrain.distil.student import student_shape
from pretrain.model import BertShape
from pretrain.monitoring.flops import StepFlops, TeacherPass

RECIPES = Path(__file__).parents[2] / "launch" / "recipes"
LINE = "# Expected cost, "
WITH_COST = [p for p in sorted(RECIPES.glob("*.yaml")) if LINE in p.read_text("utf-8")]
TEACHERS = {"runs/teacher": "teacher_base", "runs/teacher_large": "teacher_large_lamb"}


def test_recipes_of_real_size_state_their_cost() -> None:
    """Every recipe of a published size whose number of steps is given has the line."""
    sized = {path.stem for path in RECIPES.glob("student_*.yaml")}
    assert {path.stem for path in WITH_COST} == sized | set(TEACHERS.values())


@pytest.mark.parametrize("path", WITH_COST, ids=lambda path: path.stem)
def test_stated_cost_follows_the_formula(path: Path) -> None:
    """The line of the header has the figures that the recipe gives now."""
    (line,) = [line for line in path.read_text("utf-8").splitlines() if line.startswith(LINE)]
    if path.stem in TEACHERS.values():
        recipe = load_recipe(TeacherRecipe, path)
        flops, tokens = cost_of(recipe, shape_of(recipe), [], None)
        of = "by pretrain/monitoring/flops.py"
    else:
        student = load_recipe(StudentRecipe, path)
        teacher = shape_of(load_recipe(TeacherRecipe, RECIPES / f"{teacher_of(student)}.yaml"))
        stages = stages_of(student.all_stages)
        pairs = any(isinstance(o, NextSentence) for s in stages for o in s.objectives)
        own = student_shape(student.student, teacher, next_sentence=pairs)
        plans = plan_stages(stages, own, teacher, has_mlm_head=True)
        flops, tokens = cost_of(student, own, plans, teacher)
        of = "teacher included, by pretrain/monitoring/flops.py"
    figures = f"{flops / tokens / 1e9:.2f} GFLOP a real token, {flops / 1e18:.0f} EFLOP in all"
    assert line == f"{LINE}{of}: {figures}."


def teacher_of(student: StudentRecipe) -> str:
    return TEACHERS[str(student.teacher.path)]


def shape_of(recipe: TeacherRecipe) -> BertShape:
    """Return the shape of a teacher."""
    model = recipe.model
    assert recipe.positions and model.layers and model.width and model.heads and model.feed_forward
    return BertShape(
        layers=model.layers,
        width=model.width,
        heads=model.heads,
        feed_forward=model.feed_forward,
        positions=recipe.positions,
        dropout=0.1,
        vocab_size=30522,
        pad_id=0,
        next_sentence=recipe.samples.pairs != "none",
    )


def cost_of(
    recipe: RunRecipe, own: BertShape, plans: Sequence[StagePlan], teacher: BertShape | None
) -> tuple[int, int]:
    """Return the operations and the tokens of a run."""
    flops = tokens = 0
    for first_step, steps in stretches(recipe, plans):
        phase = phase_at(phases_of(recipe.train), first_step)
        rows = steps * phase.batch_rows
        counts = {
            "tokens": rows * phase.row_tokens,
            "squares": rows * phase.row_tokens**2,
            "masked": rows * phase.row_tokens * 15 // 100,
            "samples": rows,
        }
        current = [plan for plan in plans if plan.stage.first_step <= first_step][-1:]
        passes = [teacher_pass(plan, teacher) for plan in current if plan.needs_teacher and teacher]
        at_all = any(
            isinstance(o, SoftTargets) and o.at == "all"
            for plan in current
            for o in plan.stage.objectives
        )
        flops += StepFlops(trained=own).of_step(counts, passes, at_all)
        tokens += counts["tokens"]
    return flops, tokens


def stretches(recipe: RunRecipe, plans: Sequence[StagePlan]) -> Iterator[tuple[int, int]]:
    """Yield the first step and the number of steps of one phase and one stage."""
    edges = {phase.first_step for phase in phases_of(recipe.train)}
    edges |= {plan.stage.first_step for plan in plans} | {recipe.train.steps}
    for begin, end in pairwise(sorted(edges)):
        yield begin, end - begin


def teacher_pass(plan: StagePlan, teacher: BertShape) -> TeacherPass:
    """Return a teacher's pass: up to the highest layer that is read, or to its logits."""
    layers = teacher.layers if plan.needs_logits else plan.teacher_capture.last
    return TeacherPass(dataclasses.replace(teacher, layers=layers), plan.needs_logits)
