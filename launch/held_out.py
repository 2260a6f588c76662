"""Scores of any model on the held-out part of a corpus, the same masked tokens for all."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError

if TYPE_CHECKING:  # torch takes seconds to import
    from data_prep.tokenizers.folder import LoadedTokenizer
    from pretrain.model.loading import LocatedModel

# One length for all, so that every model is scored on the same masked tokens.
SCORED_TOKENS = 128
Pairs = Literal["next_sentence", "sentence_order", "none"]  # of `samples.pairs`
_MICRO_ROWS = 8


class HeldOutScores(NamedTuple):
    """How well a model predicts masked tokens of text that it was not trained on."""

    parameters: int
    loss: float  # mean cross-entropy of a masked token, nats
    accuracy: float
    baseline_accuracy: float  # of the most frequent label, see `Baseline`


def score_held_out(
    path: Path,
    corpus_path: Path,
    rows: int,
    row_tokens: int = SCORED_TOKENS,
    pairs: Pairs = "next_sentence",
) -> HeldOutScores:
    """Score a model on the first rows of a corpus's validation part.

    Args:
        path: of the model, or its name on the hub.
        corpus_path: with its validation part.
        rows: number of rows, all if there are fewer.
        row_tokens: their length.
        pairs: how documents become samples.

    Raises:
        UserError: as `check_scorable`.
    """
    from pretrain.config.run import MaskOptions, SampleOptions
    from pretrain.data.batch_source import BatchSource
    from pretrain.data.setup import VALIDATION_SEED
    from pretrain.distributed import Cluster
    from pretrain.model.loading import load_encoder
    from pretrain.train.evaluation import ACCURACY, BASELINE_ACCURACY, ValidationSet

    located, tokenizer = check_scorable(path, corpus_path, row_tokens, pairs)
    corpus = Corpus.open(corpus_path, "validation")
    cluster = Cluster.join()
    with tempfile.TemporaryDirectory() as cache:
        source = BatchSource(
            corpus,
            tokenizer,
            MaskOptions(),
            seed=VALIDATION_SEED,
            row_tokens=row_tokens,
            cache=Path(cache),
            samples=SampleOptions(pairs=pairs),
        )
        model = load_encoder(located).to(cluster.device)
        scores = ValidationSet(source, rows, _MICRO_ROWS, cluster).evaluate(model)
    return HeldOutScores(
        parameters=model.count_parameters(),
        loss=scores["validation/loss_mlm"],
        accuracy=scores[ACCURACY],
        baseline_accuracy=scores[BASELINE_ACCURACY],
    )


def check_scorable(
    path: Path, corpus_path: Path, row_tokens: int, pairs: Pairs
) -> "tuple[LocatedModel, LoadedTokenizer]":
    """Locate a model and open its tokenizer; both must fit the corpus and its rows.

    Args:
        path: of the model, or its name on the hub.
        corpus_path: with its validation part.
        row_tokens: length of the rows.
        pairs: how documents become samples.

    Raises:
        UserError: for a model without an MLM head, of another tokenizer than the corpus's, or with
            too few positions or token embeddings.
    """
    from data_prep.samples.pair_format import check_pair_format
    from data_prep.tokenizers.foreign.comparison import open_model_tokenizer
    from pretrain.model.loading import locate

    located = locate(path)
    if not located.has_mlm_head:
        raise UserError(f"{path} has no MLM head to score: name a model that has one.")
    tokenizer = open_model_tokenizer(located.folder)
    corpus = Corpus.open(corpus_path, "validation")
    if not tokenizer.is_recorded_as(corpus.tokenizer_fingerprint):
        raise UserError(
            f"{path} has another tokenizer than {corpus_path} was made with, and losses of "
            "different tokens cannot be compared: prepare a corpus with tokenizer.kind=existing "
            f"tokenizer.vocabulary={located.folder}, and score it there."
        )
    if pairs != "none":
        check_pair_format(tokenizer, "give --pairs none")
    if located.shape.vocab_size < tokenizer.vocab_size:
        raise UserError(
            f"{path} has {located.shape.vocab_size} token embeddings, but its tokenizer "
            f"{tokenizer.vocab_size} tokens: resize one of them with transformers."
        )
    if located.shape.positions < row_tokens:
        raise UserError(f"{path} has no positions for rows of {row_tokens} tokens to score.")
    return located, tokenizer
