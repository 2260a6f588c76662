"""The distillation benchmark: our sides compute the losses of a run, the peers published ones."""

import argparse
import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml

from data_prep.errors import UserError
from launch.bench import _parser
from launch.benchmarks import batches, distill, driver, train
from launch.benchmarks.distill_trainers import (
    DistillSetting,
    Ours,
    distilbert_loss,
    relation_loss,
)
from pretrain.losses.attention_kl import relation_kl_sum
from pretrain.model import BertShape
from pretrain.model.backend import Backend
from tests.launch.test_bench_train import LACKING, run_bench
from tests.student_tasks import make_distillation, stage

RECIPES = Path(__file__).parents[2] / "launch" / "recipes"
CPU = torch.device("cpu")
ROWS, ROW_TOKENS, HEADS = 2, 32, 8
Parse = Callable[..., argparse.Namespace]


@pytest.fixture
def parse() -> Parse:
    return lambda *words: _parser("distill").parse_args(["distill", *words])


@pytest.fixture
def setting(tiny_shape: BertShape) -> DistillSetting:
    teacher = dataclasses.replace(tiny_shape, layers=3, next_sentence=False)
    found = batches.random_batches(ROWS, ROW_TOKENS, tiny_shape.vocab_size)
    packed = [[next(found), next(found)] for _ in range(2)]
    return DistillSetting(
        teacher=teacher,
        shape=dataclasses.replace(teacher, layers=2, width=16, feed_forward=24),
        relation_heads=HEADS,
        precision="fp32",
        device=CPU,
        backend=Backend(),
        data=batches.pair_with_padded("random", packed, ROWS),
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", distill.SIDES)
def test_step_changes_student_only(name: str, precision: Any, setting: DistillSetting) -> None:
    """A step changes the student and never the teacher."""
    side = distill.SIDES[name](name, dataclasses.replace(setting, precision=precision))
    models = side.teacher, side.model
    before = [[p.detach().clone() for p in model.parameters()] for model in models]
    side.step(0)
    same = [
        [torch.equal(p, old) for p, old in zip(model.parameters(), kept, strict=True)]
        for model, kept in zip(models, before, strict=True)
    ]
    assert all(same[0])
    assert not side.teacher.training and side.model.training
    # Relations alone give no gradient above the last layer's attention; embeddings always get one.
    assert not same[1][0]
    if name.startswith("ours/") and precision == "fp32":
        assert any(same[1]) == (name == "ours/relations")


@pytest.mark.parametrize(
    ("name", "recipe"),
    [("ours/default", "student_default"), ("ours/distilbert", "student_6x768")],
)
def test_own_sides_match_shipped_recipes(name: str, recipe: str, setting: DistillSetting) -> None:
    """Our sides have the loss terms of the shipped recipes, with the same values."""
    side = Ours(name, setting)
    objectives = _objectives(recipe)
    _, task = make_distillation(
        side.teacher, stage(objectives), layers=2, width=16, feed_forward=24
    )
    batch, spec = setting.data.packed[0][0], task.at(0)
    found = side.model(batch, side.terms, None, side.capture)
    # The same weights under the names that a run has for them.
    projections = side.model.projections
    for number in list(projections):
        projections[f"layer{setting.shape.layers}_to_{setting.teacher.layers}"] = projections.pop(
            number
        )
    expected = side.model(batch, spec.terms, None, spec.capture)
    assert {t.tag: (t.per, t.weight) for t in found} == {t.tag: (t.per, t.weight) for t in expected}
    shown = {term.tag: term.total.item() for term in found}
    # The same sums in fp32, by the same functions.
    assert shown == pytest.approx({term.tag: term.total.item() for term in expected}, rel=1e-5)
    losses = {term.tag.removeprefix("loss/") for term in found if term.weight}
    assert len(losses) == len(objectives) and all(shown[f"loss/{name}"] > 0 for name in losses)


def test_relations_alone_compute_no_logits(
    setting: DistillSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ours/relations` has the relation term of the default and computes no logits."""
    sides = [Ours(f"ours/{name}", setting) for name in ("default", "relations")]
    batch = setting.data.packed[0][0]

    def terms_of(side: Ours) -> dict[str, Any]:
        return {term.tag: term for term in side.model(batch, side.terms, None, side.capture)}

    default = terms_of(sides[0])
    # No vocabulary may be computed: neither the teacher's nor the student's.
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", None)
    monkeypatch.setattr(sides[1].teacher, "forward", None)
    alone = terms_of(sides[1])
    assert set(default) - set(alone) == {"loss/soft_targets"}
    assert set(alone) == {"loss/relations"}
    assert alone["loss/relations"].weight == default["loss/relations"].weight
    assert alone["loss/relations"].total.item() == default["loss/relations"].total.item()
    alone["loss/relations"].total.backward()
    untrained = {n for n, p in sides[1].model.named_parameters() if p.grad is None}
    last = f"bert.encoder.layer.{setting.shape.layers - 1}"
    assert f"{last}.output.dense.weight" in untrained and "cls.predictions.bias" in untrained
    assert not any(name.startswith(f"{last}.attention.self") for name in untrained)


def test_relations_alone_exclude_head_flops(setting: DistillSetting) -> None:
    """The operations of relations alone leave out both MLM heads."""
    counts = {"tokens": 100, "squares": 500, "masked": 15, "samples": 4}
    teacher, student = setting.teacher, setting.shape
    head = 2 * 15 * (teacher.width**2 + teacher.width * teacher.vocab_size)
    head += 3 * 2 * 15 * (student.width**2 + student.width * student.vocab_size)
    whole, alone = (
        Ours(f"ours/{name}", setting).flops(counts) for name in ("default", "relations")
    )
    assert whole - alone == head


def _objectives(recipe: str) -> list[dict[str, Any]]:
    """Return a recipe's objectives, with relation heads that suit tiny widths."""
    found = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8"))["objectives"]
    return [one | ({"heads": HEADS} if "heads" in one else {}) for one in found]


def test_relation_loss_matches_ours() -> None:
    """The peer's relation loss equals the one that ours computes in tiles."""
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


def test_distilbert_loss_matches_reference() -> None:
    """The peer's loss of all tokens equals DistilBERT's formula."""
    torch.manual_seed(0)
    logits, teacher_logits = torch.randn(2, 2, 6, 20).unbind()
    hidden, states = torch.randn(2, 2, 6, 8).unbind()
    mask = torch.tensor([[1] * 6, [1] * 2 + [0] * 4])
    labels = torch.full((2, 6), -100)
    labels[0, 1], labels[1, 0] = 3, 7
    found = distilbert_loss(
        logits, teacher_logits, hidden, states, {"attention_mask": mask, "labels": labels}
    )
    soft = hard = cosine = 0.0
    for row, index in mask.nonzero().tolist():
        p, q = ((x[row, index].double() / 2).softmax(-1) for x in (teacher_logits, logits))
        soft += float((p * (p.log() - q.log())).sum()) / 8
        a, b = hidden[row, index].double(), states[row, index].double()
        cosine += (1 - float(a @ b / (a.norm() * b.norm()))) / 8
    for row, index in ((0, 1), (1, 0)):
        hard -= float(F.log_softmax(logits[row, index].double(), -1)[labels[row, index]]) / 2
    assert float(found) == pytest.approx(5 * 4 * soft + 2 * hard + cosine, rel=1e-5)


def test_distill_rows_count_real_tokens(
    setting: DistillSetting, parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures are real tokens a second, and our rows have the ratios."""
    arguments = parse("--steps", "2")
    run = driver.Run(seconds=2.0, result={"compilations": 0, "teacher_ms": 300.0})
    found = {name: [run] for name in distill.SIDES}
    monkeypatch.setattr(train, "measure_in_turns", lambda sides, rounds: found)
    makers = [partial(kind, name, setting) for name, kind in distill.SIDES.items()]
    end = "tiny_to_2x16_128"
    rows = {row.name: row for row in train.measure_steps(makers, end, arguments, setting)}
    row = rows[f"ours/default/{end}"]
    assert row.values == (2 * 2 * ROWS * ROW_TOKENS / 2.0,)
    peers = {f"{name}/{end}" for name in distill.SIDES if name.startswith("peer/")}
    assert set(row.ratio) == peers
    peer = rows[f"peer/distilbert_all_tokens/{end}"]
    tokens = sum(batch.counts["tokens"] for step in setting.data.padded[:2] for batch in step)
    assert peer.values == (tokens / 2.0,) and not peer.ratio
    for name in distill.SIDES:
        teacher, student = (rows[f"{name}/{end}/{part}"] for part in ("teacher", "student"))
        assert teacher.unit == student.unit == "ms"
        assert teacher.values == (300.0,) and student.values == (700.0,)


def test_invalid_options_are_refused(parse: Parse, tmp_path: Path) -> None:
    """Invalid options are errors of one sentence."""
    for words, message in (
        (("--student-width", "129"), "a multiple of the teacher's 2 heads"),
        (("--student-layers", "0"), "must be at least 1"),
        (("--relation-heads", "7"), "must divide the widths 128 and 128"),
        (("--row-tokens", "100"), "must be a multiple of --row-tokens"),
    ):
        with pytest.raises(UserError, match=message):
            distill.run(parse("--teacher-shape", "tiny", *words), tmp_path)


@pytest.mark.story
def test_distill_runs_without_preparation_packages(tmp_path: Path) -> None:
    """A machine without the packages of preparation measures a distillation step."""
    path = tmp_path / "distill.json"
    words = ["bench.py", "distill", "--quick", "--micro-tokens", "256", "--json", str(path)]
    ended = run_bench(
        f"import sys; sys.modules.update(dict.fromkeys({LACKING!r})); "
        f"sys.argv = {[*words, '--steps', '1', '--student-width', '64']!r}"
    )
    assert "random ids" in ended.stdout
    rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    for name in distill.SIDES:
        assert rows[f"{name}/tiny_to_1x64_128"]["median"] > 0
    assert len(rows["ours/default/tiny_to_1x64_128"]["ratio"]) == 2
