"""A step of distillation: ours, beside the usual ones of transformers on padded rows.

All sides hold teacher and student at once and take turns; a figure is real tokens a second, padding
not counted, then milliseconds a step with the teacher and with all else. Weights are random: the
cost of a step does not depend on them.
"""

import argparse
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data_prep.errors import UserError
from launch.benchmarks.device import choose_device
from launch.benchmarks.distill_trainers import AllTokens, DistillSetting, Materialised, Ours
from launch.benchmarks.report import Row
from launch.benchmarks.train import (
    SHAPES,
    add_step_arguments,
    check_step_arguments,
    make_setting,
    measure_steps,
    print_step_terms,
    shape_of,
)
from pretrain.model import BertShape

_RELATION_HEADS = 48  # as in launch/recipes/student_default.yaml
SIDES: dict[str, Any] = {
    "ours/default": Ours,
    "ours/relations": Ours,
    "ours/distilbert": Ours,
    "peer/distilbert_all_tokens": AllTokens,
    "peer/minilm_v2_materialised": Materialised,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    gpu = torch.cuda.is_available()
    usual = "base" if gpu else "tiny"
    parser.add_argument("--teacher-shape", choices=list(SHAPES), default=usual)
    parser.add_argument("--student-layers", type=int, help="half of the teacher's if left out")
    parser.add_argument("--student-width", type=int, help="the teacher's if left out")
    parser.add_argument(
        "--relation-heads", type=int,
        help=f"{_RELATION_HEADS} if left out, or the teacher's heads where that divides no width",
    )  # fmt: skip
    add_step_arguments(parser, 32768 if gpu else 512)


def run(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Measure, and return the rows."""
    check_step_arguments(arguments)
    setting = _make_setting(arguments, scratch)
    student = f"{setting.shape.layers}x{setting.shape.width}"
    suffix = f"{arguments.teacher_shape}_to_{student}_{arguments.row_tokens}"
    makers = [partial(kind, name, setting) for name, kind in SIDES.items()]
    rows = measure_steps(makers, suffix, arguments, setting)
    _print_terms(arguments, setting)
    return rows


def _make_setting(arguments: argparse.Namespace, scratch: Path) -> DistillSetting:
    teacher = dataclasses.replace(shape_of(arguments.teacher_shape), next_sentence=False)
    student = _student(arguments, teacher)
    heads = _relation_heads(arguments, student, teacher)
    setting = make_setting(student, arguments, choose_device(), scratch)
    return DistillSetting(**vars(setting), teacher=teacher, relation_heads=heads)


def _student(arguments: argparse.Namespace, teacher: BertShape) -> BertShape:
    layers, width = arguments.student_layers, arguments.student_width
    layers = (teacher.layers + 1) // 2 if layers is None else layers
    width = teacher.width if width is None else width
    if layers < 1 or width < 1 or width % teacher.heads:
        raise UserError(
            f"--student-layers {layers} must be at least 1, and --student-width {width} a multiple "
            f"of the teacher's {teacher.heads} heads."
        )
    return dataclasses.replace(teacher, layers=layers, width=width, feed_forward=4 * width)


def _relation_heads(arguments: argparse.Namespace, student: BertShape, teacher: BertShape) -> int:
    widths = student.width, teacher.width
    heads: int | None = arguments.relation_heads
    if heads is None:
        fits = not any(width % _RELATION_HEADS for width in widths)
        return _RELATION_HEADS if fits else teacher.heads
    if heads < 1 or any(width % heads for width in widths):
        raise UserError(
            f"--relation-heads {heads} must divide the widths {widths[0]} and {widths[1]}."
        )
    return heads


def _print_terms(arguments: argparse.Namespace, setting: DistillSetting) -> None:
    """Print what is compared with what."""
    teacher, student = (f"{s.layers}x{s.width}" for s in (setting.teacher, setting.shape))
    print(
        f"teacher {teacher}, student {student}, vocabulary {setting.shape.vocab_size:,}, "
        "random weights"
    )
    print_step_terms(arguments, setting)
    print(f"""\
ours/default: relations with {setting.relation_heads} heads and soft targets
ours/relations: relations alone, no logits, as minilm_v2_materialised
ours/distilbert: soft targets, MLM loss, cosine
peers: transformers, a sample a row, SDPA, not compiled; distilbert_all_tokens compares the logits \
of all tokens, minilm_v2_materialised relations alone, no logits
teacher and student: ms a step, the teacher's between events on a GPU; student is all else:
losses, backward pass, optimizer, and of ours the teacher's logits, which the fused loss computes
""")
