"""Token ids of single pre-tokens, for tokenizers whose ids do not depend on the context."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from data_prep.corpus.shards import Int64Array
from data_prep.tokenize.id_table import IdArray, IdTable

_PARTS_PER_CALL = 256
_MAX_PARTS = 500_000
_MAX_CHARS = 8_000_000
# Inside printable ASCII, BERT's words are runs of letters and digits, and each other character is
# a word by itself; its lower-casing and accents work character by character.
_PRINTABLE = re.compile("[!-~]+")
_PARTS = re.compile("[A-Za-z0-9]+|[^A-Za-z0-9]")
_AFTER_WORDS = ",.;:!?)]\"'"


class PretokenTokenizer:
    """Tokenizes distinct pre-tokens.

    Args:
        tokenizer: one whose ids of a text are those of its pre-tokens, concatenated.
        token_type: of an id on disk.
    """

    def __init__(self, tokenizer: Tokenizer, token_type: np.dtype[Any]) -> None:
        self._tokenizer = tokenizer
        self._has_parts = is_bert_pipeline(tokenizer)
        self._continues = _continuations(tokenizer) if self._has_parts else None
        self._token_type = token_type
        self._known = IdTable(token_type, max_texts=_MAX_PARTS, max_chars=_MAX_CHARS)

    def ids(self, pretokens: Sequence[str]) -> tuple[IdArray, Int64Array]:
        """Return the concatenated ids of pre-tokens, and how many each has."""
        self._known.evict()
        parts = [self._parts(pretoken) for pretoken in pretokens]
        rows, new = self._known.rows(list(itertools.chain.from_iterable(parts)))
        self._add(new)
        ids, counts = self._known.gather(rows)
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        sizes = np.fromiter(map(len, parts), np.int64, len(parts))
        return ids, np.diff(ends[np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])])

    def _parts(self, pretoken: str) -> Sequence[str]:
        """Return the words that BERT splits a pre-token into, or the whole if that is uncertain."""
        if pretoken.isalnum() or not self._has_parts:
            return (pretoken,)
        # A word and punctuation after it is the common case, and needs no regular expression.
        word = pretoken.rstrip(_AFTER_WORDS)
        if word.isalnum() and word.isascii():
            return (word, *pretoken[len(word) :])
        return _PARTS.findall(pretoken) if _PRINTABLE.fullmatch(pretoken) else (pretoken,)

    def _add(self, parts: list[str]) -> None:
        """Tokenize new parts, many in one call: a call costs more than a part."""
        words: list[int] = []
        others: list[int] = []
        for index, part in enumerate(parts):
            is_word = self._continues is not None and part.isascii() and part.isalnum()
            (words if is_word else others).append(index)
        first = len(self._known) - len(parts)
        for indices, tokenize in ((words, self._words), (others, self._any)):
            for some in _batches(indices, _PARTS_PER_CALL):
                ids, counts = tokenize([parts[index] for index in some])
                self._known.add(first + np.array(some, np.int64), ids, counts)

    def _words(self, words: list[str]) -> tuple[IdArray, Int64Array]:
        """Return the ids of ASCII words and how many each has, three times faster.

        The fast call does not return the word of each id. But BERT's pipeline does not split such a
        word, so its ids are one that begins a word, and then only ones that continue it.
        """
        assert self._continues is not None
        text = " ".join(words)
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids = np.array(encoding.ids, self._token_type)
        starts = np.flatnonzero(~self._continues[ids])
        return ids, np.diff(np.append(starts, len(ids)))

    def _any(self, parts: list[str]) -> tuple[IdArray, Int64Array]:
        """Return the ids of any parts, and how many each has."""
        encoding = self._tokenizer.encode(parts, is_pretokenized=True, add_special_tokens=False)
        owners = np.array(encoding.word_ids, np.int64)
        return np.array(encoding.ids, self._token_type), np.bincount(owners, minlength=len(parts))


def _continuations(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """Return a mask of the ids of a WordPiece tokenizer that continue a word, [vocabulary]."""
    prefix = json.loads(tokenizer.to_str())["model"]["continuing_subword_prefix"]
    continues = np.zeros(max(tokenizer.get_vocab().values()) + 1, np.bool_)
    for token, index in tokenizer.get_vocab().items():
        continues[index] = token.startswith(prefix)
    return continues


def is_bert_pipeline(tokenizer: Tokenizer) -> bool:
    """Tell whether a tokenizer is BERT's, whose ids of a pre-token do not depend on the context."""
    content = json.loads(tokenizer.to_str())
    normalizer = content["normalizer"] or {}
    return (
        content["model"]["type"] == "WordPiece"
        and normalizer.get("type") == "BertNormalizer"
        and normalizer["handle_chinese_chars"]
        and (content["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
        # An added token may contain a space; special ones are not matched in text.
        and all(token["special"] for token in content["added_tokens"])
    )


def _batches(indices: list[int], size: int) -> Iterator[list[int]]:
    return (indices[start : start + size] for start in range(0, len(indices), size))
