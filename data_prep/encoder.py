"""Sentences to token ids, several times faster than the tokenizer alone.

BERT's pipeline never looks across a space, so the ids of a sentence are the ids of its chunks
one after another, and natural text repeats its chunks. Each distinct chunk is tokenized once and
remembered as the bytes that go to disk; encoding a sentence is then a join.
"""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from data_prep.options import Language

IdArray = npt.NDArray[Any]

# About 100 MB a process. Full means empty again: what is frequent is back at once.
_MAX_CHUNKS = 500_000
_CHUNKS_A_CALL = 256

# BertNormalizer sets each of these code points apart by spaces, so a chunk may end there; the
# ranges are its own (Han ideographs; kana and hangul are words like any other).
_HAN = "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
_HAN += "\U0002b920-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f"
_HAN_CHUNKS = re.compile(f"[{_HAN}]|[^ {_HAN}]+")


class SentenceEncoder:
    """Turns sentences into arrays of token ids; text never yields a special token.

    A text that spells "[SEP]" gets the ids of its characters: only the pretraining code places
    special tokens.
    """

    def __init__(self, tokenizer: Tokenizer, token_type: np.dtype[Any], language: Language) -> None:
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._token_type = token_type
        self._split = _split_han if language == "zh" else _split_spaces
        self._caches = works_by_chunk(tokenizer)
        self._known: dict[str, bytes] = {}

    def encode(self, sentences: Sequence[str]) -> list[IdArray]:
        """Return one array of ids for each sentence; an array may be empty."""
        if not self._caches:
            encodings = self._tokenizer.encode_batch_fast(sentences, add_special_tokens=False)
            return [np.array(encoding.ids, self._token_type) for encoding in encodings]
        if len(self._known) > _MAX_CHUNKS:
            self._known.clear()
        chunks = [self._split(sentence) for sentence in sentences]
        self._learn(set(itertools.chain.from_iterable(chunks)).difference(self._known))
        known = self._known.__getitem__
        return [
            np.frombuffer(b"".join(map(known, sentence)), self._token_type) for sentence in chunks
        ]

    def _learn(self, chunks: set[str]) -> None:
        """Tokenize new chunks, many in one call: a call costs more than a chunk."""
        # Sorted, so that a run can be repeated exactly while it is being investigated.
        for batch in _batches(sorted(chunks), _CHUNKS_A_CALL):
            encoding = self._tokenizer.encode(batch, is_pretokenized=True, add_special_tokens=False)
            ids = np.array(encoding.ids, self._token_type)
            owners = np.array(encoding.word_ids, np.int64)
            ends = np.cumsum(np.bincount(owners, minlength=len(batch)))
            for chunk, start, end in zip(batch, itertools.chain((0,), ends), ends, strict=False):
                self._known[chunk] = ids[start:end].tobytes()


def works_by_chunk(tokenizer: Tokenizer) -> bool:
    """Tell whether a tokenizer is BERT's pipeline, whose ids do not depend on what is around."""
    content = json.loads(tokenizer.to_str())
    normalizer = content["normalizer"] or {}
    return (
        content["model"]["type"] == "WordPiece"
        and normalizer.get("type") == "BertNormalizer"
        and normalizer["handle_chinese_chars"]
        and (content["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
        # An added word may hold a space; special ones are switched off for text.
        and all(token["special"] for token in content["added_tokens"])
    )


def _batches(chunks: list[str], size: int) -> Iterator[list[str]]:
    return (chunks[start : start + size] for start in range(0, len(chunks), size))


def _split_spaces(sentence: str) -> list[str]:
    # The space alone: str.split() also cuts at characters that the normalizer deletes.
    return sentence.split(" ")


def _split_han(sentence: str) -> list[str]:
    return _HAN_CHUNKS.findall(sentence)
