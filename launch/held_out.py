"""Scores of a published model on the held-out part of a corpus, the same masked tokens for all."""

import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError

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
    """Score a published model on the first rows of a corpus's validation part.

    Args:
        path: of the model.
        corpus_path: with its validation part.
        rows: number of rows, all if there are fewer.
        row_tokens: their length.
        pairs: how documents become samples.

    Raises:
        UserError: for a model of another tokenizer, or of rows that are too short.
    """
    from data_prep.tokenizers.folder import read_tokenizer
    from pretrain.config.run import MaskOptions, SampleOptions
    from pretrain.data.batch_source import BatchSource
    from pretrain.data.setup import VALIDATION_SEED
    from pretrain.distributed import Cluster
    from pretrain.model.loading import load_trained
    from pretrain.train.evaluation import ACCURACY, BASELINE_ACCURACY, ValidationSet

    trained = load_trained(path)
    corpus = Corpus.open(corpus_path, "validation")
    tokenizer = read_tokenizer(path)
    if not tokenizer.is_recorded_as(corpus.tokenizer_fingerprint):
        raise UserError(
            f"{path} was trained with another tokenizer than {corpus_path} was made with."
        )
    if trained.model.shape.positions < row_tokens:
        raise UserError(f"{path} has no positions for rows of {row_tokens} tokens to score.")
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
        model = trained.model.to(cluster.device)
        scores = ValidationSet(source, rows, _MICRO_ROWS, cluster).evaluate(model)
    return HeldOutScores(
        parameters=model.count_parameters(),
        loss=scores["validation/loss_mlm"],
        accuracy=scores[ACCURACY],
        baseline_accuracy=scores[BASELINE_ACCURACY],
    )
