"""Looking at a finished corpus: is it whole, and does it read as text?"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.shards import SPLITS, Corpus, Shard, read_corpus_manifest
from data_prep.tokenizer import LoadedTokenizer, load_tokenizer

# Token ids are checked in pieces of this many, so that memory does not grow with the corpus.
_CHECK_TOKENS = 1 << 22


def verify_corpus(path: Path) -> dict[str, Any]:
    """Recompute every sha256, check every offset and token id, and return the manifest.

    Raises:
        UserError: naming the first file that is not what it should be.
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
    """Yield the first documents of the train split as a person reads them.

    Each has its number, its counts, and one line a sentence with the number of tokens.

    Raises:
        UserError: when the corpus was made with another tokenizer.
    """
    corpus, tokenizer = Corpus.open(path), load_tokenizer(tokenizer_path)
    if corpus.tokenizer_fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"The corpus {path} was made with the tokenizer {corpus.tokenizer_fingerprint}, and "
            f"{tokenizer_path} is {tokenizer.fingerprint}: correct tokenizer.path."
        )
    for index in range(min(count, corpus.num_documents)):
        yield _readable(corpus, tokenizer, index)


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
