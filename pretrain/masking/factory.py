"""The masking of a run, built from the recipe's `mask` group."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Corpus
from data_prep.tokenizers.folder import LoadedTokenizer
from pretrain.config.run import MaskOptions
from pretrain.masking.adaptive import Adaptive
from pretrain.masking.base import Masking, Policy, Uniform
from pretrain.masking.chinese_words import load_jieba
from pretrain.masking.spans import Spans
from pretrain.masking.sparse import Sparse, read_allowed
from pretrain.masking.token_counts import count_tokens
from pretrain.masking.whole_word import WholeWords, read_word_table

BuildFirst = Callable[[Callable[[], object]], None]
BoolArray = npt.NDArray[np.bool_]


def open_masking(
    options: MaskOptions,
    tokenizer: LoadedTokenizer,
    corpus: Corpus,
    cache: Path,
    build_first: BuildFirst = lambda build: None,
) -> Masking:
    """Return the masking that a recipe describes (all ranks).

    Args:
        options: the recipe's `mask` group.
        tokenizer: special ids, and the vocabulary.
        corpus: any split of the corpus; frequencies are those of its training text.
        cache: folder for token counts.
        build_first: called with a function that must run on one rank before the others go on.

    Raises:
        UserError: when a policy does not fit the tokenizer, or lacks a file or a library.
    """
    maskable = _maskable(tokenizer, max(tokenizer.vocab_size, corpus.vocab_size))
    return Masking(
        policy=_open_policy(options, tokenizer, corpus, maskable, cache, build_first),
        as_mask=options.as_mask,
        as_random=options.as_random,
        mask_id=tokenizer.mask_id,
        vocabulary=tokenizer.ordinary_ids,
        maskable=maskable,
    )


def _maskable(tokenizer: LoadedTokenizer, size: int) -> BoolArray:
    """Return which ids may be masked: all but the special tokens, [V]."""
    maskable = np.ones(size, bool)
    special = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id)
    maskable[[*special, tokenizer.mask_id]] = False
    return maskable


def _open_policy(
    options: MaskOptions,
    tokenizer: LoadedTokenizer,
    corpus: Corpus,
    maskable: BoolArray,
    cache: Path,
    build_first: BuildFirst,
) -> Policy:
    if options.policy in ("whole_word", "spans"):
        if options.chinese_words:
            load_jieba()  # report a missing library now and not at the first batch
        table = read_word_table(tokenizer, len(maskable), options.chinese_words)
        return WholeWords(table) if options.policy == "whole_word" else Spans(table)
    if options.policy == "sparse":
        allowed = read_allowed(options.allowed_tokens, tokenizer, maskable)
        return Sparse(options.sparse_count, allowed)
    if options.policy == "adaptive":
        frequencies = _frequencies(corpus, maskable, cache, build_first)
        return Adaptive(frequencies, options.frequency_power, options.position_power)
    return Uniform()


def _frequencies(
    corpus: Corpus, maskable: BoolArray, cache: Path, build_first: BuildFirst
) -> npt.NDArray[np.float64]:
    """Return the occurrences of each id in the training text, 0 for special tokens, [V]."""
    text = corpus if corpus.split == "train" else Corpus.open(corpus.path, "train")
    build_first(lambda: count_tokens(text, cache))
    counts = np.zeros(len(maskable))
    counts[: text.vocab_size] = count_tokens(text, cache)
    counts[~maskable] = 0.0
    return counts
