"""Whole-word masking: where words start, given the pieces of a tokenizer, and a draw for each.

A word is what the pre-tokenizer of BERT makes: a run of letters and digits, a punctuation mark, or
a Chinese character. Whether a piece starts a word is found once, as tables over all ids.
"""

import json
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import hash64
from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer
from pretrain.masking.base import ranges, threshold
from pretrain.masking.chinese_words import ChineseWords, is_chinese
from pretrain.masking.packed_rows import PackedRows

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class WordTable:
    """Whether a token starts a word, by its id and the id before it.

    The first token of a segment always starts a word.
    """

    begins: BoolArray  # [V] this piece is the first of a word
    closes: BoolArray | None  # [V] the next piece is the first of a word; None: by `begins` alone
    chinese: ChineseWords | None = None  # joins Chinese characters to words; None: a word each

    def word_starts(self, rows: PackedRows) -> Int64Array:
        """Return the index of the first token of each word, ascending; special tokens are words."""
        begins = self.begins[rows.input_ids]
        if self.closes is not None:
            begins[1:] |= self.closes[rows.input_ids[:-1]]
        if self.chinese is not None:
            self.chinese.join(rows.input_ids, begins)
        begins[rows.segment_starts] = True
        return np.flatnonzero(begins)


@dataclass(frozen=True)
class WholeWords:
    """All tokens of a word, or none of them: a Bernoulli draw for every word.

    The expected share of masked tokens is the rate, because every word has the same probability,
    whatever its length. (BERT's own code fills a quota of tokens instead.)
    """

    table: WordTable

    def choose(self, rows: PackedRows, key: np.uint64, rate: float) -> Int64Array:
        """Choose each word with probability `rate`."""
        words = self.table.word_starts(rows)
        return tokens_of_words(words, hash64(key, rows.counters[words]) < threshold(rate), rows)


def tokens_of_words(words: Int64Array, chosen: BoolArray, rows: PackedRows) -> Int64Array:
    """Return the indices of all tokens of the chosen words.

    Args:
        words: index of the first token of each word, [W].
        chosen: which words, [W].
        rows: that hold the words.
    """
    picked = np.flatnonzero(chosen)
    starts = words[picked]
    stops = np.append(words, len(rows.input_ids))[picked + 1]
    return ranges(starts, stops - starts)


def read_word_table(
    tokenizer: LoadedTokenizer, size: int, chinese_words: bool = False
) -> WordTable:
    """Return where words start, as the pieces of a vocabulary mark it.

    WordPiece marks a piece that continues a word (`##ing`); SentencePiece marks one that starts a
    word (with a low line, U+2581), and so does byte-level BPE with another prefix.

    Args:
        tokenizer: provides the vocabulary.
        size: V, length of the tables, greater than the largest id of the corpus.
        chinese_words: use jieba's words of Chinese instead of single characters.

    Raises:
        UserError: for a vocabulary without such marks, or when jieba is needed and missing.
    """
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    begin_prefix, continue_prefix = _prefixes(tokenizer)
    prefix = begin_prefix or continue_prefix
    texts = {index: piece.removeprefix(prefix) for piece, index in vocabulary.items()}
    marked = {index for piece, index in vocabulary.items() if texts[index] != piece}
    if not marked:
        raise UserError(
            f"No piece of the tokenizer {tokenizer.path} is marked as the start or the middle of "
            "a word, so whole words are unknown: set mask.policy to uniform."
        )
    alone = _one_token_words(texts, tokenizer, size)
    begins = np.ones(size, bool)
    begins[list(texts)] = False
    begins[list(marked if begin_prefix else texts.keys() - marked)] = True
    return WordTable(
        begins=begins | alone,
        # WordPiece marks every piece that continues a word, so `begins` is enough.
        closes=alone if begin_prefix else None,
        chinese=ChineseWords.of(vocabulary, size, prefix) if chinese_words else None,
    )


def _one_token_words(texts: dict[int, str], tokenizer: LoadedTokenizer, size: int) -> BoolArray:
    """Return which ids are a word by themselves: Chinese, punctuation, special tokens, [V]."""
    alone = np.zeros(size, bool)
    alone[[i for i, text in texts.items() if text and _is_one_word(text[0])]] = True
    special = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id)
    alone[[*special, tokenizer.mask_id]] = True
    return alone


def _prefixes(tokenizer: LoadedTokenizer) -> tuple[str, str]:
    """Return the prefixes of pieces that start and that continue a word; one of them is empty."""
    parts: dict[str, Any] = json.loads(tokenizer.backend.to_str())
    if prefix := parts["model"].get("continuing_subword_prefix"):
        return "", prefix
    # GPT-2's byte-level alphabet writes a space as U+0120.
    byte_level = '"ByteLevel"' in json.dumps(parts["pre_tokenizer"])
    return ("\u0120" if byte_level else "\u2581"), ""


def _is_one_word(character: str) -> bool:
    return is_chinese(character) or _is_punctuation(character)


def _is_punctuation(character: str) -> bool:
    """Return whether BERT's pre-tokenizer splits here: Unicode punctuation, ASCII symbols."""
    ascii_symbol = character.isascii() and not character.isalnum() and character.isprintable()
    return (ascii_symbol and character != " ") or unicodedata.category(character).startswith("P")
