"""Token ids of single chunks, for tokenizers whose ids do not depend on what is around a chunk."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

_CHUNKS_A_CALL = 256
_MAX_PARTS = 500_000
# Inside printable ASCII, BERT's words are runs of letters and digits, and each other character is
# a word by itself; its lower-casing and accents work character by character.
_PRINTABLE = re.compile("[!-~]+")
_PARTS = re.compile("[A-Za-z0-9]+|[^A-Za-z0-9]")


class ChunkTokenizer:
    """Tokenizes distinct chunks, each as the bytes that go to disk.

    Args:
        tokenizer: whose ids of a text are those of its chunks, one after another.
        token_type: of an id on disk.
    """

    def __init__(self, tokenizer: Tokenizer, token_type: np.dtype[Any]) -> None:
        self._tokenizer = tokenizer
        self._has_parts = is_bert_pipeline(tokenizer)
        self._token_type = token_type
        self._known: dict[str, bytes] = {}

    def ids(self, chunks: Sequence[str]) -> list[bytes]:
        """Return the ids of each chunk, as an array of `token_type` in bytes."""
        if len(self._known) > _MAX_PARTS:
            self._known.clear()
        parts = [self._parts(chunk) for chunk in chunks]
        self._learn(set(itertools.chain.from_iterable(parts)).difference(self._known))
        known = self._known.__getitem__
        return [b"".join(map(known, chunk)) for chunk in parts]

    def _parts(self, chunk: str) -> list[str]:
        # Words without punctuation are the rule, and need no regular expression.
        if chunk.isalnum() or not self._has_parts or not _PRINTABLE.fullmatch(chunk):
            return [chunk]
        return _PARTS.findall(chunk)

    def _learn(self, parts: set[str]) -> None:
        """Tokenize new parts, many in one call: a call costs more than a part."""
        # Sorted, so that a run can be repeated exactly while it is being investigated.
        for batch in _batches(sorted(parts), _CHUNKS_A_CALL):
            encoding = self._tokenizer.encode(batch, is_pretokenized=True, add_special_tokens=False)
            ids = np.array(encoding.ids, self._token_type)
            owners = np.array(encoding.word_ids, np.int64)
            ends = np.cumsum(np.bincount(owners, minlength=len(batch)))
            for part, start, end in zip(batch, itertools.chain((0,), ends), ends, strict=False):
                self._known[part] = ids[start:end].tobytes()


def is_bert_pipeline(tokenizer: Tokenizer) -> bool:
    """Tell whether a tokenizer is BERT's, whose ids do not depend on what is around a chunk."""
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


def _batches(parts: list[str], size: int) -> Iterator[list[str]]:
    return (parts[start : start + size] for start in range(0, len(parts), size))
