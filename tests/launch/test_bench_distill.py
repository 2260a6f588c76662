"""The distillation benchmark: our sides learn what runs do, and the peers what they claim."""

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml

from data_prep.errors import UserError
from launch.bench import _parser
from launch.benchmarks import distill, train_data
from launch.benchmarks.distill_peers import (
    AllTokens,
    Materialised,
    distilbert_loss,
    relation_loss,
)
from launch.benchmarks.distill_sides import Clocks, Lecture, Ours
from launch.benchmarks.timing import Turns
from pretrain.losses.attention_kl import relation_kl_sum
from pretrain.model import BertShape
from pretrain.model.backend import Backend
from tests.launch.test_bench_train import run_bench
from tests.student_tasks import make_distillation, stage

RECIPES = Path(__file__).parents[2] / "launch" / "recipes"
CPU = torch.device("cpu")
ROWS, ROW_TOKENS, HEADS = 2, 32, 8
KINDS: dict[str, Any] = {
    "ours/default": Ours,
    "ours/relations": Ours,
    "ours/distilbert": Ours,
    "peer/distilbert_all_tokens": AllTokens,
    "peer/minilm_v2_materialised": Materialised,
}
Parse = Callable[..., argparse.Namespace]


@pytest.fixture
def parse() -> Parse:
    return lambda *words: _parser("distill").parse_args(["distill", *words])


@pytest.fixture
def lecture(tiny_shape: BertShape) -> Lecture:
    teacher = dataclasses.replace(tiny_shape, layers=3, next_sentence=False)
    batches = train_data._random_batches(ROWS, ROW_TOKENS, tiny_shape.vocab_size)
    packed = [[next(batches), next(batches)] for _ in range(2)]
    samples = [s for step in packed for batch in step for s in train_data.samples_of(batch)]
    padded = train_data.pad_samples(samples, ROWS, ROW_TOKENS)
    return Lecture(
        teacher=teacher,
        student=dataclasses.replace(teacher, layers=2, width=16, feed_forward=24),
        relation_heads=HEADS,
        precision="fp32",
        device=CPU,
        backend=Backend(),
        data=train_data.Data("random", packed, [padded[:2], padded[2:4]]),
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", KINDS)
def test_a_step_changes_the_student_and_never_the_teacher(
    name: str, precision: Any, lecture: Lecture
) -> None:
    side = KINDS[name](name, dataclasses.replace(lecture, precision=precision))
    models = side._teacher, side._student
    before = [[p.detach().clone() for p in model.parameters()] for model in models]
    side.step(0)
    same = [
        [torch.equal(p, old) for p, old in zip(model.parameters(), kept, strict=True)]
        for model, kept in zip(models, before, strict=True)
    ]
    assert all(same[0])
    assert not side._teacher.training and side._student.training
    # Relations alone teach nothing above the last layer's attention; embeddings always learn.
    assert not same[1][0]
    if name.startswith("ours/") and precision == "fp32":
        assert any(same[1]) == (name == "ours/relations")


@pytest.mark.parametrize(
    ("name", "recipe"),
    [("ours/default", "student_default"), ("ours/distilbert", "student_6x768")],
)
def test_our_sides_learn_what_the_shipped_recipes_ask_for(
    name: str, recipe: str, lecture: Lecture
) -> None:
    side = Ours(name, lecture)
    objectives = _objectives(recipe)
    _, task = make_distillation(
        side._teacher, stage(objectives), layers=2, width=16, feed_forward=24
    )
    batch, lesson = lecture.data.packed[0][0], task.at(0)
    side._asking, _ = side.clocks.begin(0)
    found = side._student(batch, side.terms, None, side._capture(lecture.student))
    # The same weights under the names that a run has for them.
    projections = side._student.projections
    for number in list(projections):
        projections[f"layer{lecture.student.layers}_to_{lecture.teacher.layers}"] = projections.pop(
            number
        )
    expected = side._student(batch, lesson.terms, None, lesson.capture)
    assert {t.tag: (t.per, t.weight) for t in found} == {t.tag: (t.per, t.weight) for t in expected}
    shown = {term.tag: term.total.item() for term in found}
    # The same sums in fp32, by the same functions.
    assert shown == pytest.approx({term.tag: term.total.item() for term in expected}, rel=1e-5)
    losses = {term.tag.removeprefix("loss/") for term in found if term.weight}
    assert len(losses) == len(objectives) and all(shown[f"loss/{name}"] > 0 for name in losses)


def test_our_relations_alone_are_those_of_the_default_and_ask_for_no_words(
    lecture: Lecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = [Ours(f"ours/{name}", lecture) for name in ("default", "relations")]
    batch = lecture.data.packed[0][0]

    def terms_of(side: Ours) -> dict[str, Any]:
        side._asking, _ = side.clocks.begin(0)
        capture = side._capture(lecture.student)
        return {term.tag: term for term in side._student(batch, side.terms, None, capture)}

    default = terms_of(sides[0])
    # No vocabulary may be computed: neither the teacher's nor the student's.
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", None)
    monkeypatch.setattr(sides[1]._teacher, "forward", None)
    alone = terms_of(sides[1])
    assert set(default) - set(alone) == {"loss/soft_targets"}
    assert set(alone) == {"loss/relations"}
    assert alone["loss/relations"].weight == default["loss/relations"].weight
    assert alone["loss/relations"].total.item() == default["loss/relations"].total.item()
    alone["loss/relations"].total.backward()
    untaught = {n for n, p in sides[1]._student.named_parameters() if p.grad is None}
    last = f"bert.encoder.layer.{lecture.student.layers - 1}"
    assert f"{last}.output.dense.weight" in untaught and "cls.predictions.bias" in untaught
    assert not any(name.startswith(f"{last}.attention.self") for name in untaught)


def test_relations_alone_are_fewer_operations(lecture: Lecture) -> None:
    counts = {"tokens": 100, "squares": 500, "masked": 15, "samples": 4}
    teacher, student = lecture.teacher, lecture.student
    head = 2 * 15 * (teacher.width**2 + teacher.width * teacher.vocab_size)
    head += 3 * 2 * 15 * (student.width**2 + student.width * student.vocab_size)
    whole, alone = (distill._flops(lecture, counts, words) for words in (True, False))
    assert whole - alone == head


def _objectives(recipe: str) -> list[dict[str, Any]]:
    """Return a recipe's objectives, with relation heads that suit tiny widths."""
    asked = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8"))["objectives"]
    return [one | ({"heads": HEADS} if "heads" in one else {}) for one in asked]


def test_relations_as_a_whole_are_those_that_ours_streams() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([12, 5])
    mask_BS = (torch.arange(12) < lengths[:, None]).long()
    student = [torch.randn(2, 12, 16) for _ in range(3)]
    teacher = [torch.randn(2, 12, 32) for _ in range(3)]
    ids_N = mask_BS.flatten().int()
    sums = [
        relation_kl_sum(own.flatten(0, 1), theirs.flatten(0, 1), 4, ids_N, 12)
        for own, theirs in zip(student, teacher, strict=True)
    ]
    expected = float(torch.stack(sums).sum()) / int(lengths.sum())
    # Both sum a few thousand fp32 numbers of size 1, in different orders.
    assert float(relation_loss(student, teacher, mask_BS, 4)) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_all_tokens_is_distilberts() -> None:
    torch.manual_seed(0)
    logits, taught = torch.randn(2, 2, 6, 20).unbind()
    hidden, states = torch.randn(2, 2, 6, 8).unbind()
    mask = torch.tensor([[1] * 6, [1] * 2 + [0] * 4])
    labels = torch.full((2, 6), -100)
    labels[0, 1], labels[1, 0] = 3, 7
    found = distilbert_loss(
        logits, taught, hidden, states, {"attention_mask": mask, "labels": labels}
    )
    soft = hard = cosine = 0.0
    for row, place in mask.nonzero().tolist():
        p, q = ((x[row, place].double() / 2).softmax(-1) for x in (taught, logits))
        soft += float((p * (p.log() - q.log())).sum()) / 8
        a, b = hidden[row, place].double(), states[row, place].double()
        cosine += (1 - float(a @ b / (a.norm() * b.norm()))) / 8
    for row, place in ((0, 1), (1, 0)):
        hard -= float(F.log_softmax(logits[row, place].double(), -1)[labels[row, place]]) / 2
    assert float(found) == pytest.approx(5 * 4 * soft + 2 * hard + cosine, rel=1e-5)


def test_clocks_leave_warming_up_out_and_part_teacher_and_student() -> None:
    clocks = Clocks(CPU)
    for number in (0, 1, 0, 1, 0):
        teacher, whole = clocks.begin(number)
        teacher._seconds += 1.0
        whole._seconds += 3.0
    assert clocks.read(1) == [(2000.0, 4000.0)]


def test_figures_are_real_tokens_and_ratios_stand_with_ours(lecture: Lecture, parse: Parse) -> None:
    arguments = parse("--steps", "2")
    sides: Any = []
    for name, kind in KINDS.items():
        side = kind(name, lecture)
        for number in (0, 0, 1):  # warming up, and a round
            side.step(number)
        sides.append((side, Turns([2.0])))
    rows = {row.name: row for row in distill.compare(sides, lecture, arguments, None)}
    end = "tiny_to_2x16_128"
    row = rows[f"ours/default/{end}"]
    assert row.values == (2 * 2 * ROWS * ROW_TOKENS / 2.0,)
    peers = {f"{name}/{end}" for name in KINDS if name.startswith("peer/")}
    assert set(row.ratio) == peers
    peer = rows[f"peer/distilbert_all_tokens/{end}"]
    tokens = sum(batch.counts["tokens"] for step in lecture.data.padded for batch in step)
    assert peer.values == (tokens / 2.0,) and not peer.ratio
    for name in KINDS:
        teacher, student = (rows[f"{name}/{end}/{who}"] for who in ("teacher", "student"))
        assert teacher.unit == student.unit == "ms"
        assert teacher.values[0] > 0 and student.values[0] > 0


def test_wrong_requests_are_one_sentence(parse: Parse, tmp_path: Path) -> None:
    for words, message in (
        (("--student-width", "129"), "a multiple of the teacher's 2 heads"),
        (("--student-layers", "0"), "must be at least 1"),
        (("--relation-heads", "7"), "must divide the widths 128 and 128"),
        (("--row-tokens", "100"), "must be a multiple of --row-tokens"),
    ):
        with pytest.raises(UserError, match=message):
            distill.run(parse("--teacher-shape", "tiny", *words), tmp_path)


@pytest.mark.story
def test_a_machine_without_the_packages_of_recipes_measures_distillation(tmp_path: Path) -> None:
    path = tmp_path / "distill.json"
    words = ["bench.py", "distill", "--quick", "--micro-tokens", "256", "--json", str(path)]
    lacking = ["pydantic", "datasets", "deepspeed", "pyarrow"]
    ended = run_bench(
        f"import sys; sys.modules.update(dict.fromkeys({lacking!r})); "
        f"sys.argv = {[*words, '--steps', '1', '--student-width', '64']!r}"
    )
    assert "random ids" in ended.stdout
    rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    for name in KINDS:
        assert rows[f"{name}/tiny_to_1x64_128"]["median"] > 0
    assert len(rows["ours/default/tiny_to_1x64_128"]["ratio"]) == 2
