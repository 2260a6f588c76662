"""Whole words: where words begin, in the pieces of a tokenizer, and a lot for each of them.

A word is what the pre-tokenizer of BERT calls one: a run of letters and digits, a punctuation mark,
or a Chinese character. What begins a word is read off the pieces once, as tables over all ids.
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
from pretrain.masking.base import Laid, ranges, threshold
from pretrain.masking.chinese_words import ChineseWords, is_chinese

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class WordTable:
    """What each id says about the words around it.

    A word that is cut by the start of a segment counts from there.
    """

    begins: BoolArray  # this piece is the first of a word
    closes: BoolArray | None  # the piece after this one is the first of a word; None: none needs it
    chinese: ChineseWords | None = None  # asked where words of Chinese lie; None: characters

    def first_places(self, laid: Laid) -> Int64Array:
        """Return the place of the first token of each word, ascending; specials are words."""
        begins = self.begins[laid.ids]
        if self.closes is not None:
            begins[1:] |= self.closes[laid.ids[:-1]]
        if self.chinese is not None:
            self.chinese.join(laid.ids, begins)
        begins[laid.segments] = True
        return np.flatnonzero(begins)


@dataclass(frozen=True)
class WholeWords:
    """All pieces of a word together, or none of them.

    The mean share of tokens is the rate, for every token belongs to one word and every word is
    drawn with the same chance, whatever its length. (BERT's own code filled a quota of tokens.)
    """

    table: WordTable

    def choose(self, laid: Laid, key: np.uint64, rate: float) -> Int64Array:
        """Choose each word with probability `rate`."""
        words = self.table.first_places(laid)
        return places_of(words, hash64(key, laid.counters[words]) < threshold(rate), laid)


def places_of(words: Int64Array, chosen: BoolArray, laid: Laid) -> Int64Array:
    """Return the places of all tokens of the chosen words.

    Args:
        words: place of the first token of each word, [W].
        chosen: which words, [W].
        laid: where they lie.
    """
    picked = np.flatnonzero(chosen)
    starts = words[picked]
    stops = np.append(words, len(laid.ids))[picked + 1]
    return ranges(starts, stops - starts)


def read_word_table(
    tokenizer: LoadedTokenizer, size: int, chinese_words: bool = False
) -> WordTable:
    """Read off the pieces of a tokenizer where words begin.

    WordPiece marks what continues a word (`##ing`); SentencePiece marks what begins one
    (with a low line, U+2581), and byte-level BPE does so with another sign.

    Args:
        tokenizer: whose vocabulary is read.
        size: length of the tables, at least the largest id of the corpus and one.
        chinese_words: take words of Chinese from jieba instead of single characters.

    Raises:
        UserError: for a vocabulary that marks neither, or when jieba is asked for and missing.
    """
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    begin_mark, continue_mark = _marks(tokenizer)
    begins, closes = np.ones(size, bool), np.zeros(size, bool)
    marked = 0
    for piece, index in vocabulary.items():
        text = piece.removeprefix(begin_mark or continue_mark)
        marked += text != piece
        stands = bool(text) and (is_chinese(text[0]) or _is_punctuation(text[0]))
        closes[index] = stands
        begins[index] = stands or (piece.startswith(begin_mark) if begin_mark else text == piece)
    if not marked:
        raise UserError(
            f"No piece of the tokenizer {tokenizer.path} is marked as the begin or the middle of "
            "a word, so whole words are unknown: set mask.policy to uniform."
        )
    special = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id]
    begins[[*special, tokenizer.mask_id]] = closes[[*special, tokenizer.mask_id]] = True
    chinese = ChineseWords.of(vocabulary, size, begin_mark or continue_mark)
    return WordTable(
        begins=begins,
        # What continues a word is marked in WordPiece, so nothing has to be closed.
        closes=closes if begin_mark else None,
        chinese=chinese if chinese_words else None,
    )


def _marks(tokenizer: LoadedTokenizer) -> tuple[str, str]:
    """Return the sign that begins a word and the one that continues it; one of them is empty."""
    parts: dict[str, Any] = json.loads(tokenizer.backend.to_str())
    if prefix := parts["model"].get("continuing_subword_prefix"):
        return "", prefix
    # Written as GPT-2's table of printable bytes has a space.
    byte_level = '"ByteLevel"' in json.dumps(parts["pre_tokenizer"])
    return ("\u0120" if byte_level else "\u2581"), ""


def _is_punctuation(character: str) -> bool:
    """Tell punctuation as BERT's pre-tokenizer does: Unicode's, and all signs of ASCII."""
    ascii_sign = character.isascii() and not character.isalnum() and character.isprintable()
    return (ascii_sign and character != " ") or unicodedata.category(character).startswith("P")
