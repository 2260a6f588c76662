"""Starts and keys that continued pretraining refuses, each with its reason."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer
from pretrain.config.model import ModelOptions
from pretrain.distributed import Cluster
from pretrain.start.setup import continue_from_start
from tests.starts import POSITIONS, change_weights, recipe, resize_vocabulary


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"width": 64}, "model.width is 64, but model.start {start} has 32: leave out the keys"),
        ({"shape": "tiny"}, "model.width is 128, but model.start {start} has 32"),
        ({"norm": "pre"}, "model.norm is pre, but model.start {start} has post"),
        ({"layers": 3}, "model.layers is 3, but model.start {start} has 2"),
    ],
)
def test_contradicting_keys_are_refused(
    published_teacher: Path,
    tokenizer: LoadedTokenizer,
    alone: Cluster,
    model: dict[str, Any],
    sentence: str,
) -> None:
    """A key that the start decides is refused where it says something else."""
    with pytest.raises(UserError, match=re.escape(sentence.format(start=published_teacher))):
        continue_from_start(recipe(published_teacher, **model), tokenizer, alone)


def test_other_tokenizer_is_refused(
    published_teacher: Path, other_tokenizer: LoadedTokenizer, alone: Cluster
) -> None:
    """A corpus of another tokenizer is refused with the key that carries the vocabulary over."""
    with pytest.raises(UserError, match=r"or set model\.vocabulary=transfer to carry") as refused:
        continue_from_start(recipe(published_teacher), other_tokenizer, alone)
    assert str(published_teacher) in str(refused.value)


def test_start_without_tokenizer_is_refused(
    published_teacher: Path, tokenizer: LoadedTokenizer, alone: Cluster
) -> None:
    """Without its tokenizer, there is no telling whose embeddings a start has."""
    for path in published_teacher.glob("*token*.json"):
        path.unlink()
    for vocabulary in ("same", "transfer"):
        with pytest.raises(UserError, match=r"tokenizer") as refused:
            tree = recipe(published_teacher, vocabulary=vocabulary)
            continue_from_start(tree, tokenizer, alone)
        assert "model.vocabulary" not in str(refused.value)


def test_small_embeddings_are_refused(
    published_teacher: Path, other_tokenizer: LoadedTokenizer, alone: Cluster
) -> None:
    """A tokenizer with more tokens than the start has embeddings is refused with both numbers."""
    resize_vocabulary(published_teacher, 190)
    with pytest.raises(UserError, match="embeddings of 190 tokens, but its tokenizer has 201"):
        tree = recipe(published_teacher, vocabulary="transfer")
        continue_from_start(tree, other_tokenizer, alone)


def test_rows_beyond_the_starts_positions_are_refused(
    published_teacher: Path, tokenizer: LoadedTokenizer, alone: Cluster
) -> None:
    """Rows longer than the start's positions are refused with the key that extends them."""
    tree = recipe(published_teacher)
    long = tree.model_copy(update={"train": tree.train.model_copy(update={"row_tokens": 96})})
    with pytest.raises(UserError, match=r"train\.row_tokens 96 exceeds the 64 .*positions=96 to"):
        continue_from_start(long, tokenizer, alone)


def test_weights_that_are_not_finite_are_refused(
    published_teacher: Path, tokenizer: LoadedTokenizer, alone: Cluster
) -> None:
    """NaN in a start is found before the first step."""
    change_weights(published_teacher, **{POSITIONS: torch.full((64, 32), float("nan"))})
    with pytest.raises(UserError, match=f"NaN or infinity in {re.escape(POSITIONS)}"):
        continue_from_start(recipe(published_teacher), tokenizer, alone)


def test_transfer_without_start_is_refused() -> None:
    """A vocabulary cannot be carried over from nothing."""
    with pytest.raises(ValidationError, match="needs the start"):
        ModelOptions.model_validate({"vocabulary": "transfer"})
