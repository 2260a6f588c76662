"""Pairs for tokenizers that put other special tokens around them than rows have."""

import dataclasses
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

from data_prep.errors import UserError
from data_prep.samples.pair_format import check_pair_format
from data_prep.tokenizers.folder import load_tokenizer


def test_two_separators_are_refused(tiny_tokenizer: Path) -> None:
    """BERT's format is that of rows; RoBERTa's two separators between texts are not."""
    loaded = load_tokenizer(tiny_tokenizer)
    check_pair_format(loaded, "set samples.pairs=none")
    backend = Tokenizer.from_str(loaded.backend.to_str())
    backend.post_processor = processors.RobertaProcessing(
        ("[SEP]", loaded.sep_id), ("[CLS]", loaded.cls_id)
    )
    roberta = dataclasses.replace(loaded, backend=backend)
    with pytest.raises(UserError, match=r"puts 4 special tokens .* have 3, .*: set samples.pairs="):
        check_pair_format(roberta, "set samples.pairs=none")
