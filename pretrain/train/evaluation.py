"""The fixed validation set: the same rows with the same masks at every step.

Its seed is a constant and its documents are those the corpus held out, so runs with one row length
and one mask recipe are scored on the same masked tokens.
"""

from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch

from pretrain.data.batch import Batch
from pretrain.data.batch_source import BatchSource
from pretrain.distributed import Cluster
from pretrain.losses.term import Objective, Term
from pretrain.model.captured_states import Capture
from pretrain.train.task import PRETRAINING_VALIDATION, StepSpec

ACCURACY = "validation/accuracy_mlm"
BASELINE_ACCURACY = "validation/accuracy_mlm_baseline"
_COUNTS = ("masked", "samples", "tokens")  # what a term may be divided by


class Model(Protocol):
    """What can be validated: an `Engine`, or a plain `Bert`."""

    def __call__(
        self, batch: Batch, objective: Objective, dropout_keys: None, capture: Capture
    ) -> list[Term]:
        """Compute the terms of a micro-batch, without dropout."""
        ...

    def train(self, mode: bool) -> object:
        """Switch dropout on or off."""
        ...


class Baseline(NamedTuple):
    """The best constant prediction: the most frequent label of the validation set itself.

    No other constant, the most frequent token of the training text among them, is right more often.
    """

    token: int  # its id
    accuracy: float


class ValidationSet:
    """A fixed number of rows, spread over the ranks."""

    def __init__(self, source: BatchSource, rows: int, micro_rows: int, cluster: Cluster) -> None:
        self._source = source
        self._rows = min(rows, source.epoch_index(0).num_rows)
        self._micro_rows = micro_rows
        self._cluster = cluster

    @cached_property
    def baseline(self) -> Baseline:
        """The accuracy to compare the MLM accuracy with (all ranks)."""
        counts = np.zeros(self._source.spec.tokenizer.vocab_size, np.int64)
        for batch in self._batches():
            _, labels = batch.mlm_targets
            counts += np.bincount(labels.numpy(), minlength=len(counts))
        counts = self._cluster.sum_tensor(torch.from_numpy(counts)).numpy()
        return Baseline(int(counts.argmax()), float(counts.max() / max(1, counts.sum())))

    def evaluate(self, model: Model, spec: StepSpec = PRETRAINING_VALIDATION) -> dict[str, float]:
        """Return MLM and NSP losses and accuracies, and what else a spec has (all ranks).

        Keys are `validation/loss_mlm`, `validation/accuracy_mlm`, that of the baseline,
        `validation/accuracy_mlm_baseline`, for a model with an NSP head,
        `validation/loss_nsp` and `validation/accuracy_nsp`, and for a student a loss for each
        objective that compares layers, such as `validation/loss_relations`.
        """
        baseline = self.baseline.accuracy
        scores: dict[str, float] = {}
        for tag, score in self._mean_terms(model, spec).items():
            scores[f"validation/{tag.replace('/', '_')}"] = score
            if tag == "accuracy/mlm":
                scores[BASELINE_ACCURACY] = baseline
        return scores

    def _mean_terms(self, model: Model, spec: StepSpec) -> dict[str, float]:
        """Return each term, over what it counts in the whole set."""
        model.train(False)
        sums, counts = [], np.zeros(len(_COUNTS), np.int64)
        with torch.no_grad():
            for batch in self._batches():
                counts += [batch.counts[name] for name in _COUNTS]
                terms = model(batch.to(self._cluster.device), spec.terms, None, spec.capture)
                sums.append(torch.stack([term.total for term in terms]).double())
        model.train(True)
        totals = self._cluster.sum_tensor(torch.stack(sums).sum(0)).tolist()
        per = dict(zip(_COUNTS, self._cluster.sum([int(count) for count in counts]), strict=True))
        return {
            term.tag: total / max(1, per[term.per])
            for term, total in zip(terms, totals, strict=True)
        }

    def _batches(self) -> list[Batch]:
        """Return this rank's micro-batches; every rank gets as many, blank rows included.

        Under ZeRO-3 each forward pass is a collective, so their number must not differ.
        """
        stride = self._cluster.world_size * self._micro_rows
        batches = []
        for start in range(0, self._rows, stride):
            first = start + self._cluster.rank * self._micro_rows
            last = min(first + self._micro_rows, self._rows)
            batches.append(self._source.rows(np.arange(first, last), self._micro_rows))
        return batches
