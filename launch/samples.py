"""Training samples as a person reads them: rows, segments, and what is asked of each masked word.

A masked word reads `{shown → label}`: the model sees the first and must answer the second.
"""

import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import decoders

from data_prep.corpus.inspection import beginning_of, open_with_tokenizer
from data_prep.tokenizers.folder import LoadedTokenizer
from pretrain.config.run import MaskOptions
from pretrain.data.batch import Batch
from pretrain.data.batch_source import BatchSource

_ROWS_AT_A_TIME = 8
_WIDTH = 100
_NO_BREAK = "\u00a0"  # lines are not wrapped here
_FOLLOWS = 0  # as in transformers' `next_sentence_label`
_LABELS = {True: "B follows A", False: "B is from elsewhere"}
# WordPiece marks tokens that continue a word, the others those that start one.
_CONTINUES = "##"
_STARTS = {decoders.Metaspace: "▁", decoders.ByteLevel: "Ġ"}


def readable_samples(
    path: Path, tokenizer_path: Path, count: int, row_tokens: int
) -> Iterator[str]:
    """Yield the first training samples of a corpus, and a line for each row that holds them.

    They are those of epoch 0 with the default masking, drawn from the first shard alone, so that
    it takes a second however large the corpus is.

    Raises:
        UserError: when the corpus was made with another tokenizer.
    """
    corpus, tokenizer = open_with_tokenizer(path, tokenizer_path)
    corpus = beginning_of(corpus, tokens=1)
    with tempfile.TemporaryDirectory() as cache:
        source = BatchSource(
            corpus, tokenizer, MaskOptions(), seed=0, row_tokens=row_tokens, cache=Path(cache)
        )
        rows, left = source.epoch_index(0).num_rows, count
        for start in range(0, rows, _ROWS_AT_A_TIME):
            numbers = np.arange(start, min(start + _ROWS_AT_A_TIME, rows))
            batch = source.rows(numbers, len(numbers))
            for row in range(len(numbers)):
                if left <= 0:
                    return
                samples = int(_row(batch, batch.sample_ids, row).max())
                yield _describe_row(batch, row, start + row)
                for sample in range(1, min(samples, left) + 1):
                    yield _describe_sample(batch, row, sample, tokenizer)
                left -= samples


def _describe_row(batch: Batch, row: int, number: int) -> str:
    lengths = torch.bincount(_row(batch, batch.sample_ids, row)).tolist()
    parts = " + ".join(str(length) for length in lengths[1:])
    return f"row {number}: {parts} tokens + {lengths[0]} padding = {batch.row_tokens}"


def _row(batch: Batch, table_N: torch.Tensor, row: int) -> torch.Tensor:
    return table_N.view(-1, batch.row_tokens)[row]


def _describe_sample(batch: Batch, row: int, sample: int, tokenizer: LoadedTokenizer) -> str:
    """Return a sample with its label, its segments and its masked words."""
    own = _row(batch, batch.sample_ids, row) == sample
    places = torch.nonzero(own).flatten() + row * batch.row_tokens
    labels, answers = (
        dict(zip(places.tolist(), labels.tolist(), strict=True))
        for places, labels in (batch.mlm_targets, batch.nsp_targets)
    )
    masked = sum(place in labels for place in places.tolist())
    segments = _segments(batch, places)
    label = "one segment"
    if len(segments) > 1:
        label = _LABELS[answers[int(places[0])] == _FOLLOWS]
    lines = [f"  sample {sample}  {label}, {len(places)} tokens, {masked} of them to predict"]
    for name, segment in zip("AB", segments, strict=False):
        text = _readable(batch, segment.tolist(), labels, tokenizer)
        indent = f"    {name}  "
        lines += textwrap.wrap(
            text, _WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent)
        )
    return "\n".join(lines).replace(_NO_BREAK, " ")


def _segments(batch: Batch, places: torch.Tensor) -> list[torch.Tensor]:
    """Return the places of A and, in a pair, of B: without [CLS] and the [SEP] after each."""
    second = batch.token_types[places] == 1
    parts = [places[~second][1:-1]]
    return [*parts, places[second][:-1]] if second.any() else parts


def _readable(
    batch: Batch, places: list[int], labels: dict[int, int], tokenizer: LoadedTokenizer
) -> str:
    """Join the tokens of a segment to words, with every masked token in braces."""
    text = ""
    for place in places:
        token, glued = _spelled(int(batch.input_ids[place]), tokenizer)
        if place in labels:
            answer, glued = _spelled(labels[place], tokenizer)
            token = f"{{{token}{_NO_BREAK}→{_NO_BREAK}{answer}}}"
        text += token if glued or not text else f" {token}"
    return text


def _spelled(index: int, tokenizer: LoadedTokenizer) -> tuple[str, bool]:
    """Return a token without the marks of its tokenizer, and whether it continues a word."""
    token = tokenizer.backend.id_to_token(index) or f"[id {index}]"
    if start := _STARTS.get(type(tokenizer.backend.decoder)):
        return token.removeprefix(start), not token.startswith(start)
    return token.removeprefix(_CONTINUES), token.startswith(_CONTINUES)
