"""Held-out scores of models of others: what they are, and which are refused before they compute."""

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import transformers
from transformers import AutoTokenizer

from data_prep.errors import UserError
from data_prep.tokenizers.folder import load_tokenizer
from launch.held_out import check_scorable, score_held_out
from pretrain.losses.mlm_nsp import mlm_losses
from tests.foreign_models import save

ROW = 32
_MODERN = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
           "sep_token_id": 3}  # fmt: skip


@pytest.fixture(autouse=True)
def no_group_left() -> Iterator[None]:
    """End the process group that scoring joins."""
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def folder_of(folder: Path, tokenizer: Path, name: str, **config: Any) -> Path:
    """Save a model of transformers and its tokenizer, called before with truncation and padding."""
    size = load_tokenizer(tokenizer).vocab_size
    save(folder, name, **{"vocab_size": size, "max_position_embeddings": 64, **config})
    opened = AutoTokenizer.from_pretrained(tokenizer)
    opened(["a house", "a"], truncation=True, max_length=16, padding=True)
    opened.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("BertForMaskedLM", {"tie_word_embeddings": False}),
        ("DistilBertForMaskedLM", {}),
        ("ModernBertForMaskedLM", _MODERN),
    ],
)
def test_models_of_others_are_scored(
    tmp_path: Path,
    tiny_corpus: Path,
    tiny_tokenizer: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    config: dict[str, Any],
) -> None:
    """The MLM loss is that of plain transformers on the same masked tokens of each sample."""
    folder = folder_of(tmp_path / "model", tiny_tokenizer, name, **config)
    batches: list[Any] = []

    def keep(outputs: Any, batch: Any) -> Any:
        batches.append(batch)
        return mlm_losses(outputs, batch)

    monkeypatch.setattr("pretrain.losses.mlm_nsp.mlm_losses", keep)
    found = score_held_out(folder, tiny_corpus, rows=2, row_tokens=ROW, pairs="none")
    plain = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    losses = [loss for batch in batches for loss in _plain_losses(plain, batch)]
    assert losses and found.loss == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert found.parameters == sum(p.numel() for p in plain.parameters()) - _unused(plain)


def _plain_losses(plain: Any, batch: Any) -> Iterator[float]:
    """Yield the loss of each masked token of a batch, one sample at a time."""
    positions, labels = batch.mlm_targets
    bounds = batch.cu_seqlens.tolist()
    for first, end in pairwise(bounds):
        inside = (positions >= first) & (positions < end)
        if inside.any():
            with torch.no_grad():
                logits = plain(input_ids=batch.input_ids[None, first:end]).logits[0]
            chosen = logits[positions[inside] - first]
            yield from torch.nn.functional.cross_entropy(
                chosen, labels[inside], reduction="none"
            ).tolist()


def _unused(plain: Any) -> int:
    """Return the number of parameters that a decoder with a bias of its own leaves unused."""
    predictions = getattr(getattr(plain, "cls", None), "predictions", None)
    untied = predictions is not None and predictions.bias is not predictions.decoder.bias
    return int(predictions.bias.numel()) if untied else 0


def test_other_tokenizer_is_no_comparison(
    tmp_path: Path, tiny_corpus: Path, tiny_tokenizer: Path
) -> None:
    """Losses of different tokens cannot be compared: refused, with the way to score the model."""
    folder = folder_of(tmp_path / "model", tiny_tokenizer, "BertForMaskedLM")
    config = folder / "tokenizer_config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"do_lower_case": true', '"do_lower_case": false'))
    assert text != config.read_text(encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot be compared: prepare a corpus with .*=existing"):
        check_scorable(folder, tiny_corpus, ROW, "none")


def test_unfit_models_refused(tmp_path: Path, tiny_corpus: Path, tiny_tokenizer: Path) -> None:
    """Too few token embeddings or positions, and no MLM head, are refused by their numbers."""
    small = folder_of(tmp_path / "small", tiny_tokenizer, "BertForMaskedLM", vocab_size=150)
    with pytest.raises(UserError, match="has 150 token embeddings, but its tokenizer 201 tokens"):
        check_scorable(small, tiny_corpus, ROW, "none")
    shutil.rmtree(small)
    short = folder_of(tmp_path / "short", tiny_tokenizer, "BertForMaskedLM")
    with pytest.raises(UserError, match="has no positions for rows of 128 tokens"):
        check_scorable(short, tiny_corpus, 128, "none")
    headless = folder_of(tmp_path / "headless", tiny_tokenizer, "BertModel")
    with pytest.raises(UserError, match="has no MLM head to score"):
        check_scorable(headless, tiny_corpus, ROW, "none")
