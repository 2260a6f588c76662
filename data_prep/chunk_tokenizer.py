"""Token ids of single chunks, for tokenizers whose ids do not depend on what is around a chunk."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

_CHUNKS_A_CALL = 256
_MAX_PARTS = 250_000
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
        self._continues = _continuations(tokenizer) if self._has_parts else None
        self._token_type = token_type
        self._known: dict[str, bytes] = {}
        self._earlier: dict[str, bytes] = {}

    def ids(self, chunks: Sequence[str]) -> list[bytes]:
        """Return the ids of each chunk, as an array of `token_type` in bytes."""
        if len(self._known) > _MAX_PARTS:
            # What is asked for again is taken over; the rest is gone the next time.
            self._known, self._earlier = {}, self._known
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
        again = parts & self._earlier.keys()
        self._known.update((part, self._earlier[part]) for part in again)
        # Sorted, so that a run can be repeated exactly while it is being investigated.
        words: list[str] = []
        others: list[str] = []
        for part in sorted(parts - again):
            is_word = self._continues is not None and part.isascii() and part.isalnum()
            (words if is_word else others).append(part)
        for batch in _batches(words, _CHUNKS_A_CALL):
            self._keep(batch, *self._words(batch))
        for batch in _batches(others, _CHUNKS_A_CALL):
            self._keep(batch, *self._any(batch))

    def _words(self, words: list[str]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return the ids of ASCII words and where those of each end, three times faster.

        The fast call does not tell which word an id is from. But BERT's pipeline leaves such a
        word whole, so its ids are one that begins a word, and then only ones that continue it.
        """
        assert self._continues is not None
        text = " ".join(words)
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids = np.array(encoding.ids, self._token_type)
        starts = np.flatnonzero(~self._continues[ids])
        return ids, np.append(starts[1:], len(ids))

    def _any(self, parts: list[str]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return the ids of parts of any kind, and where those of each end."""
        encoding = self._tokenizer.encode(parts, is_pretokenized=True, add_special_tokens=False)
        ids = np.array(encoding.ids, self._token_type)
        owners = np.array(encoding.word_ids, np.int64)
        return ids, np.cumsum(np.bincount(owners, minlength=len(parts)))

    def _keep(self, parts: list[str], ids: npt.NDArray[Any], ends: npt.NDArray[Any]) -> None:
        data, size = ids.tobytes(), ids.itemsize
        bounds = [0, *(ends * size).tolist()]
        for part, (start, end) in zip(parts, itertools.pairwise(bounds), strict=True):
            self._known[part] = data[start:end]


def _continuations(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """Tell for each id of a WordPiece tokenizer whether it continues a word."""
    prefix = json.loads(tokenizer.to_str())["model"]["continuing_subword_prefix"]
    continues = np.zeros(max(tokenizer.get_vocab().values()) + 1, np.bool_)
    for token, index in tokenizer.get_vocab().items():
        continues[index] = token.startswith(prefix)
    return continues


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
