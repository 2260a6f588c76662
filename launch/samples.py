"""Training samples as text: rows, segments and masked tokens.

A masked token is written `{input → label}`: what the model sees, and what it must predict.
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
_LABELS = {True: "B follows A", False: "B is an NSP negative"}
# WordPiece prefixes tokens that continue a word, the others those that start one.
_CONTINUES = "##"
_STARTS = {decoders.Metaspace: "▁", decoders.ByteLevel: "Ġ"}


def readable_samples(
    path: Path, tokenizer_path: Path, count: int, row_tokens: int
) -> Iterator[str]:
    """Yield the first training samples of a corpus, after a line for the row of each.

    They are the samples of epoch 0 with the default masking, from the first shard alone, so that it
    takes a second for a corpus of any size.

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
    """Return a sample with its label, its segments and its masked tokens."""
    own = _row(batch, batch.sample_ids, row) == sample
    positions = torch.nonzero(own).flatten() + row * batch.row_tokens
    mlm_labels, nsp_labels = (
        dict(zip(positions.tolist(), labels.tolist(), strict=True))
        for positions, labels in (batch.mlm_targets, batch.nsp_targets)
    )
    masked = sum(position in mlm_labels for position in positions.tolist())
    segments = _segments(batch, positions)
    label = "one segment"
    if len(segments) > 1:
        label = _LABELS[nsp_labels[int(positions[0])] == _FOLLOWS]
    lines = [f"  sample {sample}  {label}, {len(positions)} tokens, {masked} of them to predict"]
    for name, segment in zip("AB", segments, strict=False):
        text = _readable(batch, segment.tolist(), mlm_labels, tokenizer)
        indent = f"    {name}  "
        lines += textwrap.wrap(
            text, _WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent)
        )
    return "\n".join(lines).replace(_NO_BREAK, " ")


def _segments(batch: Batch, positions: torch.Tensor) -> list[torch.Tensor]:
    """Return the positions of A and, in a pair, of B: without [CLS] and the [SEP] after each."""
    second = batch.token_types[positions] == 1
    parts = [positions[~second][1:-1]]
    return [*parts, positions[second][:-1]] if second.any() else parts


def _readable(
    batch: Batch, positions: list[int], labels: dict[int, int], tokenizer: LoadedTokenizer
) -> str:
    """Join the tokens of a segment to words, with every masked token in braces."""
    text = ""
    for position in positions:
        token, continues = _spelled(int(batch.input_ids[position]), tokenizer)
        if position in labels:
            label, continues = _spelled(labels[position], tokenizer)
            token = f"{{{token}{_NO_BREAK}→{_NO_BREAK}{label}}}"
        text += token if continues or not text else f" {token}"
    return text


def _spelled(index: int, tokenizer: LoadedTokenizer) -> tuple[str, bool]:
    """Return a token without the prefix of its tokenizer, and whether it continues a word."""
    token = tokenizer.backend.id_to_token(index) or f"[id {index}]"
    if start := _STARTS.get(type(tokenizer.backend.decoder)):
        return token.removeprefix(start), not token.startswith(start)
    return token.removeprefix(_CONTINUES), token.startswith(_CONTINUES)
