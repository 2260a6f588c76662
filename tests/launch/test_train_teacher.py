"""The shape of a teacher follows from its recipe and its tokenizer."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from data_prep.tokenizers.folder import load_tokenizer
from launch.train_teacher import teacher_shape
from pretrain.config.run import TeacherRecipe
from pretrain.data.setup import Inputs


@pytest.mark.parametrize(
    ("pairs", "asked"), [("next_sentence", True), ("sentence_order", True), ("none", False)]
)
def test_single_segments_have_no_nsp_head(tiny_tokenizer: Path, pairs: str, asked: bool) -> None:
    """A teacher of single segments has no NSP head."""
    tree: dict[str, Any] = {name: {"path": name} for name in ("run", "corpus", "tokenizer")}
    tree |= {"train": {"steps": 5, "batch_rows": 4, "micro_rows": 4}, "samples": {"pairs": pairs}}
    recipe = TeacherRecipe.model_validate(tree)
    inputs = cast(Inputs, SimpleNamespace(tokenizer=load_tokenizer(tiny_tokenizer)))
    shape = teacher_shape(recipe, inputs)
    assert shape.next_sentence == asked and shape.vocab_size == inputs.tokenizer.vocab_size
