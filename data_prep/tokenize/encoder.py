"""Documents to token ids and sentence offsets, several times faster than the tokenizer alone.

BERT's pipeline never depends on what is across a space, nor does that of our SentencePiece
tokenizers, so the ids of a text are the ids of its pre-tokens concatenated. A batch of documents is
split into pre-tokens, each pre-token is looked up in a cache, and numpy does the rest: it gathers
the ids, and finds the sentences by the sentence-boundary flags of the pre-tokens.

Where this does not hold, the tokenizer encodes sentence by sentence: for other tokenizers, and with
a sentence splitter of the user.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from data_prep.config.schema import Language
from data_prep.corpus.shards import Documents, Int64Array, offsets_of
from data_prep.text_batches import batch_by_chars
from data_prep.tokenize.pretoken_cache import (
    DOCUMENT_END_ROW,
    EMPTY_ROW,
    NEWLINE_ROW,
    PretokenCache,
)
from data_prep.tokenize.pretoken_tokenizer import PretokenTokenizer, is_bert_pipeline
from data_prep.tokenize.sentence_flags import DOCUMENT_END, NEWLINE, RULES, ends_after
from data_prep.tokenize.sentence_rules import split_sentences
from data_prep.tokenizers.sentencepiece import CROSSES_SPACE, works_by_word

Splitter = Callable[[str], Sequence[str]]

# Pre-tokens of this many characters are in memory at once, each a Python string.
_GROUP_CHARS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class EncodedTexts(Documents):
    """Texts as flat arrays: paragraph j is the sentences `paragraphs[j]` to `paragraphs[j + 1]`.

    No sentence is empty; paragraphs and documents may be.
    """

    paragraphs: Int64Array


class TextEncoder:
    """Encodes cleaned texts; text never yields a special token.

    A text that spells "[SEP]" gets the ids of its characters: only the pretraining code inserts
    special tokens.

    Args:
        tokenizer: any fast tokenizer.
        token_type: of an id on disk.
        language: the rules that end a sentence.
        splitter: replaces these rules; returns the sentences of a paragraph.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        token_type: np.dtype[Any],
        language: Language,
        splitter: Splitter | None = None,
    ) -> None:
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._token_type = token_type
        self._splitter = splitter or (lambda paragraph: split_sentences(paragraph, language))
        self._rule = RULES[language]
        self._cache: PretokenCache | None = None
        # SentencePiece's words run from space to space, as do the pre-tokens of `en`.
        by_word = language == "en" and works_by_word(tokenizer)
        self._exception = CROSSES_SPACE if by_word else None
        if splitter is None and (by_word or is_bert_pipeline(tokenizer)):
            pretoken_tokenizer = PretokenTokenizer(tokenizer, token_type)
            self._cache = PretokenCache(pretoken_tokenizer, self._rule, token_type)

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Return the tokens of some texts, in which a newline ends a paragraph."""
        if self._cache is None:
            return _join([self._by_sentences(text) for text in texts], self._token_type)
        parts = []
        for by_pretokens, some in itertools.groupby(texts, self._splits_at_spaces):
            if by_pretokens:
                parts += [self._by_pretokens(group, self._cache) for group in _groups(list(some))]
            else:
                parts += [self._by_sentences(text) for text in some]
        return _join(parts, self._token_type)

    def _splits_at_spaces(self, text: str) -> bool:
        """Tell whether the ids of a text are certainly those of its pre-tokens."""
        return self._exception is None or not self._exception.search(text)

    def _by_pretokens(self, group: str, cache: PretokenCache) -> EncodedTexts:
        rows = cache.rows(self._rule.split(group))
        rows = rows[rows != EMPTY_ROW]
        tokens, counts = cache.ids(rows)
        ends = np.cumsum(counts)
        is_end = ends_after(cache.end[rows], cache.begin[rows])
        sentences = _without_empty(ends[is_end])
        paragraph_ends = ends[(rows == NEWLINE_ROW) | (rows == DOCUMENT_END_ROW)]
        return EncodedTexts(
            tokens=tokens,
            sentences=sentences,
            paragraphs=offsets_of(np.searchsorted(sentences, paragraph_ends)),
            documents=offsets_of(np.searchsorted(sentences, ends[rows == DOCUMENT_END_ROW])),
        )

    def _by_sentences(self, text: str) -> EncodedTexts:
        paragraphs = [self._splitter(paragraph) for paragraph in text.split("\n")]
        every = [sentence for paragraph in paragraphs for sentence in paragraph]
        encodings = self._tokenizer.encode_batch_fast(every, add_special_tokens=False)
        ids = [np.array(encoding.ids, self._token_type) for encoding in encodings]
        ends = offsets_of(np.cumsum([len(sentence) for sentence in ids], dtype=np.int64))
        sentences = _without_empty(ends[1:])
        last = np.cumsum([len(paragraph) for paragraph in paragraphs])
        return EncodedTexts(
            tokens=np.concatenate([*ids, np.zeros(0, self._token_type)]),
            sentences=sentences,
            paragraphs=offsets_of(np.searchsorted(sentences, ends[last])),
            documents=np.array([0, len(sentences) - 1]),
        )


def _groups(texts: Sequence[str]) -> Iterator[str]:
    """Yield the texts as long strings in which newlines and document ends are pre-tokens."""
    pieces = (
        piece.replace("\n", f" {NEWLINE} ") + f" {end} "
        for text in texts
        for piece, end in _pieces(text)
    )
    for group in batch_by_chars(pieces, _GROUP_CHARS):
        yield "".join(group)


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield a text whole, or a long one by paragraphs, each with the pre-token that ends it."""
    start = 0
    while len(text) - start > _GROUP_CHARS:
        cut = text.rfind("\n", start, start + _GROUP_CHARS)
        cut = cut if cut >= 0 else text.find("\n", start)
        if cut < 0:
            break
        yield text[start:cut], NEWLINE
        start = cut + 1
    yield text[start:], DOCUMENT_END


def _without_empty(ends: Int64Array) -> Int64Array:
    """Return the bounds of the non-empty ranges that end at `ends`."""
    bounds: Int64Array = np.unique(offsets_of(ends))
    return bounds


def _join(parts: Sequence[EncodedTexts], token_type: np.dtype[Any]) -> EncodedTexts:
    """Concatenate parts; a document may end in a later part than it began in."""
    tokens = [np.zeros(0, token_type), *(part.tokens for part in parts)]
    sentences, paragraphs, documents = ([np.zeros(1, np.int64)] for _ in range(3))
    num_tokens = num_sentences = 0
    for part in parts:
        sentences.append(part.sentences[1:] + num_tokens)
        paragraphs.append(part.paragraphs[1:] + num_sentences)
        documents.append(part.documents[1:] + num_sentences)
        num_tokens += len(part.tokens)
        num_sentences += len(part.sentences) - 1
    return EncodedTexts(
        tokens=np.concatenate(tokens),
        sentences=np.concatenate(sentences),
        paragraphs=np.concatenate(paragraphs),
        documents=np.concatenate(documents),
    )
