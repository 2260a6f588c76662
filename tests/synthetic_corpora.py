"""Synthetic corpora, and the tokenizer that fits them.

A *numbered* corpus counts its tokens up from `NUMBERED_FROM` through all its shards, so that a
token gives its position in the corpus. A *prose* corpus has chains of words that a model can
learn, and a vocabulary of real word strings.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import (
    FORMAT,
    SPLITS,
    Corpus,
    Documents,
    ShardWriter,
    shard_files,
    token_type_for,
)
from data_prep.counter_rng import Permutation, integers_below, key_of, uniform
from data_prep.manifest import write_manifest
from data_prep.tokenizers.folder import save_tokenizer
from data_prep.tokenizers.wordpiece import SPECIAL_TOKENS, bert_tokenizer

Sentences = Sequence[Sequence[int]]
Shards = Sequence[Sequence[Sequence[int]]]  # documents of each shard, as lengths of their sentences

NUMBERED_FROM = 1000  # above every special id
NUMBERED_VOCAB = 1 << 24

ONSETS = "b br c d f g h l m p s st t w".split()
RIMES = "ake all and at ed en ill in it old op ore ug un".split()
WORDS = [onset + rime for onset in ONSETS for rime in RIMES]
_TOPICS, _SUCCESSORS = 4, 3


def write_tokenizer(directory: Path) -> None:
    """Write a WordPiece tokenizer of the vocabulary `WORDS`; word i has the id 5 + i."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *WORDS])}
    save_tokenizer(bert_tokenizer(vocabulary, lowercase=True), directory, "wordpiece")


def write_corpus(
    directory: Path,
    splits: Mapping[str, Sequence[Sequence[Sentences]]],
    *,
    tokenizer: str = "0123456789abcdef",
    vocab_size: int = NUMBERED_VOCAB,
) -> None:
    """Write a complete corpus: for each split its shards, for each shard its documents."""
    directory.mkdir(parents=True)
    token_type = token_type_for(vocab_size)
    facts: dict[str, Any] = {}
    for split in SPLITS:
        shards = []
        for index, documents in enumerate(splits.get(split, ())):
            with ShardWriter(directory, f"{split}_{index:05d}", token_type) as writer:
                for document in documents:
                    writer.add(as_documents([document]))
                shards.append(vars(writer.close()))
        totals = {
            what: sum(shard[what] for shard in shards)
            for what in ("documents", "sentences", "tokens")
        }
        facts[split] = {**totals, "shards": shards}
    names = [s["name"] for split in facts.values() for s in split["shards"]]
    manifest = {
        "format": FORMAT,
        "token_type": token_type.name,
        "tokenizer": tokenizer,
        "vocab_size": vocab_size,
        "sources": [{"path": "made/to_measure.txt", "bytes": 0}],
        "options": {},
        "splits": facts,
        "dropped": {},
    }
    write_manifest(directory, manifest, [file for name in names for file in shard_files(name)])


def as_documents(documents: Sequence[Sentences]) -> Documents:
    """Return documents, given as the token ids of their sentences, as flat arrays."""
    sentences = [sentence for document in documents for sentence in document]
    return Documents(
        tokens=np.array([token for sentence in sentences for token in sentence], np.int64),
        sentences=np.cumsum([0, *map(len, sentences)], dtype=np.int64),
        documents=np.cumsum([0, *map(len, documents)], dtype=np.int64),
    )


def numbered_corpus(directory: Path, shards: Shards) -> Corpus:
    """Write and open a train split whose token at position p is `NUMBERED_FROM + p`."""
    numbers = count(NUMBERED_FROM)
    documents = [
        [[[next(numbers) for _ in range(length)] for length in document] for document in shard]
        for shard in shards
    ]
    write_corpus(directory, {"train": documents})
    return Corpus.open(directory)


def draw_shards(key: str, documents: Iterable[int], median_tokens: int = 150) -> Shards:
    """Draw lengths distributed as in Wikipedia: log-normal, sentences of 3 to 60 tokens.

    Args:
        key: the same key gives the same lengths.
        documents: how many documents each shard has.
        median_tokens: of a document.
    """
    return [
        [_draw_sentences(f"{key}/{shard}/{index}", median_tokens) for index in range(size)]
        for shard, size in enumerate(documents)
    ]


def prose_shards(key: str, documents: Iterable[int]) -> list[list[list[list[int]]]]:
    """Draw documents that a model can learn: a word has few successors, a document one topic."""
    return [
        [_draw_prose(f"{key}/{shard}/{index}") for index in range(size)]
        for shard, size in enumerate(documents)
    ]


def _draw_sentences(key: str, median_tokens: int) -> list[int]:
    size = median_tokens * np.exp(1.2 * _normal(key_of("document", key), 1)[0])
    lengths = 18 * np.exp(0.56 * _normal(key_of("sentences", key), 40 + int(size / 10)))
    lengths = np.clip(lengths.astype(np.int64), 3, 60)
    enough = int(np.searchsorted(np.cumsum(lengths), size)) + 1
    return [int(length) for length in lengths[:enough]]


def _normal(key: np.uint64, size: int) -> npt.NDArray[np.float64]:
    """Return normal draws, by the method of Box and Muller."""
    first, second = uniform(key, np.arange(2 * size)).reshape(2, size)
    return np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)


def _draw_prose(key: str) -> list[list[int]]:
    topic, sentences = integers_below(key_of("prose", key), [0, 1], [_TOPICS, 12])
    lengths = 4 + integers_below(key_of("lengths", key), np.arange(2 + sentences), 9)
    words = _chain(key, int(topic), int(lengths.sum()))
    return [part.tolist() for part in np.split(words, np.cumsum(lengths)[:-1])]


def _chain(key: str, topic: int, size: int) -> npt.NDArray[np.int64]:
    """Return ids of words, each one of `_SUCCESSORS` successors of the word before it."""
    per_topic = len(WORDS) // _TOPICS
    shuffle = Permutation(key_of("topic", topic), per_topic)
    steps = 1 + integers_below(key_of("steps", key), np.arange(size), _SUCCESSORS)
    return len(SPECIAL_TOKENS) + topic * per_topic + shuffle(np.cumsum(steps) % per_topic)
