"""Inspect a finished corpus: verify it, and decode its documents."""

from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.corpus.shards import SPLITS, Corpus, Shard, read_corpus_manifest
from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer

# Token ids are checked in pieces of this many, so that memory does not grow with the corpus.
_CHECK_TOKENS = 1 << 22


def verify_corpus(path: Path) -> dict[str, Any]:
    """Check every sha256, offset and token id of a corpus, and return its manifest.

    Raises:
        UserError: naming the first damaged file or shard.
    """
    manifest = read_corpus_manifest(path, hashes=True)
    for split in SPLITS:
        for shard in Corpus(path, manifest, split).shards:
            if damage := _find_fault(shard, manifest["vocab_size"]):
                raise UserError(
                    f"The shard {shard.counts.name} of {path} is damaged: {damage}; prepare the "
                    "corpus again."
                )
    return manifest


def readable_documents(path: Path, tokenizer_path: Path, count: int) -> Iterator[str]:
    """Yield the first documents of the train split as decoded text.

    Each has its index, its counts, and one line a sentence with the number of tokens.

    Raises:
        UserError: when the corpus was made with another tokenizer.
    """
    corpus, tokenizer = open_with_tokenizer(path, tokenizer_path)
    for index in range(min(count, corpus.num_documents)):
        yield _readable(corpus, tokenizer, index)


def open_with_tokenizer(path: Path, tokenizer_path: Path) -> tuple[Corpus, LoadedTokenizer]:
    """Open the train split of a corpus and the tokenizer that made it.

    Raises:
        UserError: when the corpus was made with another tokenizer.
    """
    corpus, tokenizer = Corpus.open(path), load_tokenizer(tokenizer_path)
    if not tokenizer.is_recorded_as(corpus.tokenizer_fingerprint):
        raise UserError(
            f"The corpus {path} was made with the tokenizer {corpus.tokenizer_fingerprint}, and "
            f"{tokenizer_path} is {tokenizer.fingerprint}: correct tokenizer.path."
        )
    return corpus, tokenizer


def beginning_of(corpus: Corpus, tokens: int) -> Corpus:
    """Return a corpus of the first shards only, so that reading it takes seconds.

    They hold at least `tokens` tokens, and the two documents that a sentence pair needs. Its epoch
    indices must not be cached: they would be opened as those of the whole corpus.
    """
    held = np.cumsum([[shard.counts.documents, shard.counts.tokens] for shard in corpus.shards], 0)
    enough = np.searchsorted(held[:, 0], 2), np.searchsorted(held[:, 1], tokens)
    part = copy(corpus)
    part.shards = corpus.shards[: int(max(enough)) + 1]
    part.num_documents = sum(shard.counts.documents for shard in part.shards)
    part.num_sentences = sum(shard.counts.sentences for shard in part.shards)
    part.num_tokens = sum(shard.counts.tokens for shard in part.shards)
    return part


def _find_fault(shard: Shard, vocab_size: int) -> str | None:
    for offsets, what, end in (
        (shard.sentences, "sentence offsets", shard.counts.tokens),
        (shard.documents, "document offsets", shard.counts.sentences),
    ):
        if offsets[0] != 0 or offsets[-1] != end:
            return f"the {what} run from {offsets[0]} to {offsets[-1]} instead of from 0 to {end}"
        if np.any(offsets[1:] <= offsets[:-1]):
            return f"the {what} do not ascend"
    for start in range(0, shard.counts.tokens, _CHECK_TOKENS):
        largest = int(shard.tokens[start : start + _CHECK_TOKENS].max())
        if largest >= vocab_size:
            return f"the token id {largest} is outside the vocabulary of {vocab_size}"
    return None


def _readable(corpus: Corpus, tokenizer: LoadedTokenizer, index: int) -> str:
    sentences = corpus.document(index)
    tokens = sum(len(sentence) for sentence in sentences)
    lines = [f"document {index}: {len(sentences)} sentences, {tokens} tokens"]
    for sentence in sentences:
        text = tokenizer.backend.decode(sentence.tolist(), skip_special_tokens=False)
        lines.append(f"{len(sentence):6d}  {text}")
    return "\n".join(lines)
