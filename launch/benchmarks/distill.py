"""A step of distillation: ours, beside the usual ones of transformers on padded rows.

All sides hold teacher and student at once and take turns; a figure is real tokens a second, padding
not counted, then milliseconds a step with the teacher and with all else. Weights are random: what
a step costs does not depend on them.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data_prep.errors import UserError
from launch.benchmarks import train
from launch.benchmarks.distill_peers import AllTokens, Materialised
from launch.benchmarks.distill_sides import Lecture, Ours
from launch.benchmarks.report import Row
from launch.benchmarks.timing import Turns, take_turns, top_operations
from launch.benchmarks.train_sides import add_counts
from pretrain.model import BertShape
from pretrain.model.compilation import CompilationCounter
from pretrain.monitoring.flops import StepFlops, TeacherPass
from pretrain.monitoring.gpu_peaks import device_peak

_RELATION_HEADS = 48  # as in launch/recipes/student_default.yaml
AnySide = Ours | AllTokens | Materialised


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    gpu = torch.cuda.is_available()
    names, usual = list(train.SHAPES), "base" if gpu else "tiny"
    parser.add_argument("--teacher-shape", choices=names, default=usual)
    parser.add_argument("--student-layers", type=int, help="half of the teacher's if left out")
    parser.add_argument("--student-width", type=int, help="the teacher's if left out")
    parser.add_argument(
        "--relation-heads", type=int,
        help=f"{_RELATION_HEADS} if left out, or the teacher's heads where that divides no width",
    )  # fmt: skip
    train.add_step_arguments(parser, 32768 if gpu else 512)


def run(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Measure, and return the rows."""
    train.check(arguments)
    device = train.choose_device()
    lecture = _lecture(arguments, device, scratch)
    makers: list[Callable[[], Any]] = [
        partial(Ours, "ours/default", lecture),
        partial(Ours, "ours/relations", lecture),
        partial(Ours, "ours/distilbert", lecture),
        partial(AllTokens, "peer/distilbert_all_tokens", lecture),
        partial(Materialised, "peer/minilm_v2_materialised", lecture),
    ]
    sides: Any = take_turns(
        makers,
        rounds=arguments.repeat,
        steps=arguments.steps,
        warm_up=train.WARM_UP,
        device=device,
        count_compilations=CompilationCounter().since_last,
    )
    rows = compare(sides, lecture, arguments, device_peak(device, arguments.precision))
    _print_terms(arguments, lecture, sides)
    return rows


def compare(
    sides: Sequence[tuple[AnySide, Turns]],
    lecture: Lecture,
    arguments: argparse.Namespace,
    peak: float | None,
) -> list[Row]:
    """Return the rates of all sides, ours last with their ratios, then what they are made of."""
    peers: list[Row] = []
    ours: list[Row] = []
    parts: list[Row] = []
    for side, turns in sides:
        is_ours = isinstance(side, Ours)
        counts = _counts(lecture.data.packed if is_ours else lecture.data.padded, arguments.steps)
        row = Row(
            name=f"{side.name}/{_suffix(arguments, lecture)}",
            unit="tokens/s",
            values=tuple(counts["tokens"] / seconds for seconds in turns.seconds),
            peak_bytes=turns.peak_bytes,
        )
        parts += _parts(row.name, side, len(turns.seconds), arguments.steps)
        details: dict[str, Any] = {"compilations_after_warming_up": turns.compilations}
        if isinstance(side, Ours):
            flops = _flops(lecture, counts, side.learns_words)
            parts += train.utilisation(row.name, flops, turns.seconds, peak)
            details["top_operations"] = top_operations(lambda: side.step(0), lecture.device)  # noqa: B023  # called at once
        (ours if is_ours else peers).append(dataclasses.replace(row, details=details))
    return [*peers, *(row.against(peers) for row in ours), *parts]


def _parts(name: str, side: AnySide, rounds: int, steps: int) -> list[Row]:
    """Return the milliseconds of a step with the teacher, and with all else."""
    spans = side.clocks.read(rounds)
    return [
        Row(name=f"{name}/{who}", unit="ms", values=tuple(ms / steps for ms in each))
        for who, each in zip(("teacher", "student"), zip(*spans, strict=True), strict=True)
    ]


def _counts(batches: Sequence[Sequence[Any]], steps: int) -> dict[str, int]:
    return add_counts([b for number in range(steps) for b in batches[number % len(batches)]])


def _flops(lecture: Lecture, counts: dict[str, int], words: bool) -> int:
    """Return the operations that a round needs, those of the losses not counted."""
    needed = counts if words else {**counts, "masked": 0}
    return StepFlops(trained=lecture.student).of_step(needed, [TeacherPass(lecture.teacher, words)])


def _suffix(arguments: argparse.Namespace, lecture: Lecture) -> str:
    student = f"{lecture.student.layers}x{lecture.student.width}"
    return f"{arguments.teacher_shape}_to_{student}_{arguments.row_tokens}"


def _lecture(arguments: argparse.Namespace, device: torch.device, scratch: Path) -> Lecture:
    teacher = dataclasses.replace(train.shape_of(arguments.teacher_shape), next_sentence=False)
    student = _student(arguments, teacher)
    heads = _relation_heads(arguments, student, teacher)
    setting = train.make_setting(student, arguments, device, scratch)
    return Lecture(
        teacher=teacher,
        student=student,
        relation_heads=heads,
        precision=setting.precision,
        device=device,
        backend=setting.backend,
        data=setting.data,
    )


def _student(arguments: argparse.Namespace, teacher: BertShape) -> BertShape:
    layers = (teacher.layers + 1) // 2 if arguments.student_layers is None else (
        arguments.student_layers
    )  # fmt: skip
    width = teacher.width if arguments.student_width is None else arguments.student_width
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


def _print_terms(
    arguments: argparse.Namespace, lecture: Lecture, sides: Sequence[tuple[AnySide, Turns]]
) -> None:
    """Say what is compared with what."""
    teacher, student = (
        f"{shape.layers}x{shape.width}" for shape in (lecture.teacher, lecture.student)
    )
    print(
        f"teacher {teacher}, student {student}, vocabulary {lecture.student.vocab_size:,}, "
        f"{arguments.precision}; {arguments.micro_batches} micro-batch(es) of "
        f"{arguments.micro_tokens} places a step, rows of {arguments.row_tokens} tokens"
    )
    print(f"{arguments.repeat} round(s) of {arguments.steps} steps, all sides taking turns")
    print(f"text: {lecture.data.origin}; weights: random")
    print(
        f"ours: {lecture.backend.kernels.name}, {lecture.backend.attention} attention, "
        f"{'compiled' if lecture.backend.compiled else 'not compiled'}; packed rows, words at "
        "masked places"
    )
    print(
        f"ours/default: relations with {lecture.relation_heads} heads and soft targets; "
        "ours/relations: relations alone, no words, as minilm_v2_materialised; "
        "ours/distilbert: soft targets, masked words, cosine"
    )
    print(
        "peers: transformers, a sample a row, SDPA, not compiled; distilbert_all_tokens learns "
        "from the logits of all tokens, minilm_v2_materialised from relations alone, no words"
    )
    print(
        "teacher and student: ms a step, between events on a GPU; student is all but the teacher: "
        "losses, backward pass and optimizer too, and of ours the teacher's logits, which the "
        "fused loss makes"
    )
    for side, turns in sides:
        if turns.compilations:
            print(f"warning: {side.name} compiled {turns.compilations} time(s) after warming up")
    print()
