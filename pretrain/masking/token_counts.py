"""Token counts of the training text, computed once and cached beside the epoch indices."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Corpus
from data_prep.manifest import fingerprint

_BLOCK_TOKENS = 1 << 22  # memory does not grow with the corpus


def count_tokens(corpus: Corpus, cache: Path) -> npt.NDArray[np.float64]:
    """Return the occurrences of each id in one epoch of a split, [V].

    Shards are weighted by the number of times an epoch samples their documents. The file's name
    holds the fingerprint of the corpus, so a stale file is never read. On several ranks, one must
    have counted before the others call this.

    Args:
        corpus: the split.
        cache: folder of the file.
    """
    weights = [shard.weight for shard in corpus.shards]
    facts = fingerprint([corpus.fingerprint, corpus.split, weights])
    path = cache / f"{corpus.split}_token_counts_{facts}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        # Renamed when complete: a killed run leaves a temporary file, never half the counts.
        temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with temporary.open("wb") as file:
            np.save(file, _count(corpus), allow_pickle=False)
        temporary.replace(path)
    counts: npt.NDArray[np.float64] = np.load(path, allow_pickle=False)
    return counts


def _count(corpus: Corpus) -> npt.NDArray[np.float64]:
    counts = np.zeros(corpus.vocab_size)
    for shard in corpus.shards:
        for start in range(0, len(shard.tokens), _BLOCK_TOKENS):
            block = np.bincount(shard.tokens[start : start + _BLOCK_TOKENS])
            counts[: len(block)] += shard.weight * block
    return counts
