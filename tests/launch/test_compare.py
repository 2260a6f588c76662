"""The comparing command: one table, whole, with the accuracy of the constant prediction."""

import contextlib
import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from data_prep.errors import UserError
from launch import compare
from launch.command_line.errors import run_command
from launch.held_out import HeldOutScores
from pretrain.export.card.languages import example_sentences
from pretrain.model import BertShape
from tests.exports import publish_format


@pytest.fixture
def no_group_left() -> Iterator[None]:
    """End the process group that scoring joins."""
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def test_nothing_comes_between_lines_of_the_table(
    published_teacher: Path,
    tiny_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_group_left: None,
) -> None:
    """Warnings and progress of any model come before the first line of the output."""
    other = tmp_path / "student"
    shutil.copytree(published_teacher, other)
    words = ["compare", str(published_teacher), str(other), "--corpus", str(tiny_corpus)]
    words += ["--language", "en"]
    json_file = tmp_path / "report.json"
    words += ["--rows", "4", "--row-tokens", "64", "--json", str(json_file)]
    monkeypatch.setattr(sys, "argv", words)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        run_command(compare.main)
    lines = printed.getvalue().splitlines()
    start = lines.index(f"{published_teacher}:")
    sentences = len(example_sentences(["en"], "[MASK]"))
    assert sentences > 3
    assert lines[start + 1 + sentences] == f"{other}:"
    table = lines[start + 2 * (1 + sentences) :]
    assert table[0] == ""
    assert re.fullmatch(r"model +parameters +MLM loss +accuracy +baseline +ms a batch", table[1])
    assert [line.split()[0] for line in table[2:4]] == ["teacher", "student"]
    assert table[4].endswith("the baseline always predicts the most frequent token)")
    assert len(table) == 5
    losses = [line.split()[2] for line in table[2:4]]
    assert losses[0] == losses[1], "both are scored on the same masked tokens"
    report = json.loads(json_file.read_text(encoding="utf-8"))
    assert report["corpus"] == str(tiny_corpus) and report["row_tokens"] == 64
    assert [f"{model['loss']:.4f}" for model in report["models"]] == losses


def test_table_has_baseline_beside_accuracy() -> None:
    """A colleague sees at once whether a model is better than one constant answer."""
    scores = HeldOutScores(parameters=1234567, loss=2.5, accuracy=0.107, baseline_accuracy=0.109)
    row = compare.Row(name="student", scores=scores, milliseconds=3.25)
    line = compare.table_lines([row], row_tokens=128)[1]
    assert line.split() == ["student", "1,234,567", "2.5000", "10.70%", "10.90%", "3.2"]


@pytest.mark.parametrize(
    ("name", "mask"), [("bert", "[MASK]"), ("distilbert-byte-level", "<mask>")]
)
def test_mask_is_that_of_tokenizer(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape, name: str, mask: str
) -> None:
    """Sentences have the mask token of each model; without a language it stands alone."""
    export = publish_format(tmp_path, name, tiny_tokenizer, tiny_shape)
    filled = compare.fill_masks(export, ["xh", "de"], count=2)
    assert list(filled) == list(example_sentences(["de"], mask))
    assert all(text.count(mask) == 1 and len(best) == 2 for text, best in filled.items())
    assert list(compare.fill_masks(export, ["xh"])) == [mask]


def test_language_is_that_of_corpus(tiny_corpus: Path) -> None:
    """Sentences are in the language of the corpus, unless another is named."""
    assert compare._choose_languages(None, tiny_corpus) == []
    assert compare._choose_languages("ja,en", tiny_corpus) == ["ja", "en"]
    with pytest.raises(UserError, match="no ISO 639 code"):
        compare._choose_languages("japanese", tiny_corpus)
