"""The fixed validation set: the same rows with the same masks at every step.

Its seed is a constant and its documents are those the corpus held out, so runs with one row length
and one mask recipe are measured on the same questions.
"""

from typing import Protocol

import numpy as np
import torch

from pretrain.data.batch import Batch
from pretrain.data.batch_source import BatchSource
from pretrain.distributed import Cluster
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.losses.term import Objective, Term


class Model(Protocol):
    """What can be validated: an `Engine`, or a plain `Bert`."""

    def __call__(self, batch: Batch, objective: Objective) -> list[Term]:
        """Compute the terms of a micro-batch."""
        ...

    def train(self, mode: bool) -> object:
        """Switch dropout on or off."""
        ...


class ValidationSet:
    """A fixed number of rows, spread over the ranks."""

    def __init__(self, source: BatchSource, rows: int, micro_rows: int, cluster: Cluster) -> None:
        self._source = source
        self._rows = min(rows, source.epoch_index(0).num_rows)
        self._micro_rows = micro_rows
        self._cluster = cluster

    def evaluate(self, model: Model) -> dict[str, float]:
        """Return masked-word and next-sentence losses and accuracies (all ranks).

        Keys are `validation/loss_mlm`, `validation/accuracy_mlm` and, for a model with that
        head, `validation/loss_nsp` and `validation/accuracy_nsp`.
        """
        model.train(False)
        sums, counts = [], np.zeros(2, np.int64)
        with torch.no_grad():
            for batch in self._batches():
                batch_counts = batch.counts
                counts += (batch_counts["masked"], batch_counts["samples"])
                terms = model(batch.to(self._cluster.device), pretraining_terms)
                sums.append(torch.stack([term.total for term in terms]).double())
        model.train(True)
        totals = self._cluster.sum_tensor(torch.stack(sums).sum(0)).tolist()
        masked, samples = self._cluster.sum([int(count) for count in counts])
        per = {"masked": masked, "samples": samples}
        return {
            f"validation/{term.tag.replace('/', '_')}": total / max(1, per[term.per])
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
