"""The distillation benchmark: our sides compute the losses of a run, the peers published ones."""

import argparse
import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from data_prep.errors import UserError
from launch.bench import _parser
from launch.benchmarks import distill, driver, train
from launch.benchmarks.batches import with_padded
from launch.benchmarks.device import Trainer
from launch.benchmarks.distill import distilbert_loss, relation_loss
from launch.benchmarks.trainers import Setting
from pretrain.data.dummy_batch import dummy_batch
from pretrain.losses.attention_kl import relation_kl_sum
from pretrain.model import BertShape
from pretrain.model.backend import Backend

ROWS, ROW_TOKENS, HEADS = 2, 32, 8
PEERS = ("peer/distilbert_all_tokens", "peer/minilm_v2_materialised")
SIDES = (*distill.OURS, *PEERS)


def parse(*words: str) -> argparse.Namespace:
    return _parser("distill").parse_args(["distill", *words])


@pytest.fixture
def teacher(tiny_shape: BertShape) -> BertShape:
    return dataclasses.replace(tiny_shape, layers=3, next_sentence=False)


@pytest.fixture
def setting(teacher: BertShape) -> Setting:
    batch = dummy_batch(teacher.vocab_size, ROWS, ROW_TOKENS, masked_tokens=10)
    batch = dataclasses.replace(batch, counts=batch.counts | {"squares": ROWS * ROW_TOKENS**2})
    return Setting(
        shape=dataclasses.replace(teacher, layers=2, width=16, feed_forward=24),
        precision="fp32",
        device=torch.device("cpu"),
        backend=Backend(),
        data=with_padded([[batch, batch], [batch, batch]], ROWS),
    )


def makers_of(setting: Setting, teacher: BertShape) -> Mapping[str, Any]:
    ours = {
        name: partial(distill.make_ours, name, setting, teacher, distill.objectives_of(name, HEADS))
        for name in distill.OURS
    }
    peers = zip(PEERS, distill.PEERS, strict=True)
    return ours | {name: partial(make, setting, teacher, HEADS) for name, make in peers}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", SIDES)
def test_step_changes_student_only(
    name: str,
    precision: Any,
    setting: Setting,
    teacher: BertShape,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step changes the student, whose weights have gradients, and never the teacher."""
    models: list[torch.nn.Module] = []
    for kind in ("build_bert", "make_student", "build_hf"):
        build: Any = getattr(distill, kind)

        def record(*given: Any, build: Any = build, **options: Any) -> Any:
            models.append(build(*given, **options))
            return models[-1]

        monkeypatch.setattr(distill, kind, record)
    side: Trainer = makers_of(dataclasses.replace(setting, precision=precision), teacher)[name]()
    assert side.name == name
    frozen, student = models
    before = [[p.detach().clone() for p in model.parameters()] for model in models]
    side.step(0)
    same = [
        [torch.equal(p, old) for p, old in zip(model.parameters(), kept, strict=True)]
        for model, kept in zip(models, before, strict=True)
    ]
    assert all(same[0]) and not frozen.training
    # Relations give no gradient above the last layer's attention; embeddings always get one.
    assert not same[1][0] and student.training
    assert side.teacher_ms() > 0


def test_objectives_are_those_of_recipes() -> None:
    """Our sides have the objectives of the shipped recipes, and relations alone the first one."""
    kinds = {
        name: [(o.kind, o.weight) for o in distill.objectives_of(name, HEADS).objectives]
        for name in distill.OURS
    }
    assert kinds["ours/default"] == [("relations", 1.0), ("soft_targets", 0.1)]
    assert kinds["ours/relations"] == [("relations", 1.0)]
    weights = [("soft_targets", 5.0), ("hard_mlm", 2.0), ("hidden_cosine", 1.0)]
    assert kinds["ours/distilbert"] == weights


def test_relations_alone_compute_no_logits(
    setting: Setting, teacher: BertShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ours/relations` computes no logits, and its operations leave out both MLM heads."""
    makers = makers_of(setting, teacher)
    whole, alone = makers["ours/default"](), makers["ours/relations"]()
    counts = {"tokens": 100, "squares": 500, "masked": 15, "samples": 4}
    student = setting.shape
    head = 2 * 15 * (teacher.width**2 + teacher.width * teacher.vocab_size)
    head += 3 * 2 * 15 * (student.width**2 + student.width * student.vocab_size)
    assert whole.flops and alone.flops and whole.flops(counts) - alone.flops(counts) == head

    def no_logits(*_: Any, **__: Any) -> None:
        raise AssertionError("logits were computed")

    monkeypatch.setattr(F, "cross_entropy", no_logits)
    alone.step(0)


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


def test_rows_count_real_tokens(
    setting: Setting, teacher: BertShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures are real tokens a second, and our rows have the ratios."""
    run = driver.Run(seconds=2.0, result={"compilations": 0, "teacher_ms": 300.0})
    found = {name: [run] for name in SIDES}
    monkeypatch.setattr(train, "measure_in_turns", lambda sides, rounds: found)
    end, makers = "tiny_to_2x16_128", list(makers_of(setting, teacher).values())
    measured = train.measure_steps(makers, end, parse("--steps", "2"), setting)
    rows = {row.name: row for row in measured}
    row = rows[f"ours/default/{end}"]
    assert row.values == (2 * 2 * ROWS * ROW_TOKENS / 2.0,)
    assert set(row.ratio) == {f"{name}/{end}" for name in PEERS}
    peer = rows[f"peer/distilbert_all_tokens/{end}"]
    tokens = sum(batch.counts["tokens"] for step in setting.data.padded[:2] for batch in step)
    assert peer.values == (tokens / 2.0,) and not peer.ratio
    for name in SIDES:
        parts = [rows[f"{name}/{end}/{part}"] for part in ("teacher", "student")]
        assert [(part.unit, part.values) for part in parts] == [("ms", (300.0,)), ("ms", (700.0,))]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--student-width", "129"), "not divisible by its 2 heads"),
        (("--relation-heads", "7"), "do not divide the student's width 128"),
        (("--row-tokens", "100"), "must be a multiple of --row-tokens"),
    ],
)
def test_invalid_options_are_refused(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    """Invalid options are errors of one sentence."""
    with pytest.raises(UserError, match=message):
        distill.run(parse("--teacher-shape", "tiny", *words), tmp_path)
