"""Our sides of the distillation benchmark, and what all of its sides share.

They are put together from the objectives that a run is, without the recipe: that takes packages
which a GPU machine may lack. That both give the same terms is tested.
"""

from dataclasses import dataclass

import torch
from torch import nn

from launch.benchmarks.train_data import Data
from launch.benchmarks.train_sides import DTYPES, Precision, Update, add_counts
from pretrain.data.batch import Batch
from pretrain.distil.logit_losses import SoftLoss, soft_terms
from pretrain.losses.attention_kl import relation_kl_sum
from pretrain.losses.hidden import cosine_sum
from pretrain.losses.term import Term, normalised_loss
from pretrain.model import Bert, BertShape, Outputs, initialise
from pretrain.model.backend import Backend
from pretrain.model.captured_states import Capture, States
from pretrain.model.compilation import apply_backend
from pretrain.model.dropout_rng import dropout_keys
from pretrain.monitoring.device_timer import DeviceTimer

# As in launch/recipes/student_default.yaml and student_6x768.yaml.
_DEFAULT = SoftLoss(temperature=1.0, divergence="forward", weight=0.1)
_DISTILBERT = SoftLoss(temperature=2.0, divergence="forward", weight=5.0, hard_weight=2.0)
PROJECTION = "to_teacher"


@dataclass(frozen=True, kw_only=True)
class Lecture:
    """What all sides share: who teaches whom, on which samples."""

    teacher: BertShape
    student: BertShape
    relation_heads: int
    precision: Precision
    device: torch.device
    backend: Backend  # of ours
    data: Data


class Clocks:
    """Time with the teacher and in all, by round: each begins with step 0, warming up too."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rounds: list[tuple[DeviceTimer, DeviceTimer]] = []

    def begin(self, number: int) -> tuple[DeviceTimer, DeviceTimer]:
        """Return the clocks for a step: with the teacher, and in all."""
        if number == 0:
            self._rounds.append((DeviceTimer(self._device), DeviceTimer(self._device)))
        return self._rounds[-1]

    def read(self, rounds: int) -> list[tuple[float, float]]:
        """Return the milliseconds with teacher and student of each round after warming up."""
        spans = [(a.read_ms(), b.read_ms()) for a, b in self._rounds[1 : 1 + rounds]]
        return [(teacher, whole - teacher) for teacher, whole in spans]


class Ours:
    """Packed rows, fused operations, words at masked places; one teacher, one student.

    Args:
        name: of the side; its last part, `default`, `relations` or `distilbert`, is what is
            learned. Relations alone need no vocabulary, neither of the student nor of the teacher.
        lecture: what all sides share.
    """

    def __init__(self, name: str, lecture: Lecture) -> None:
        self.name = name
        self.clocks = Clocks(lecture.device)
        self._lecture = lecture
        self._learned = name.rpartition("/")[2]
        self._teacher = self._make(lecture.teacher, seed=1).eval().requires_grad_(False)
        self._student = self._make(lecture.student, seed=0)
        self._update = Update(self._student)

    def step(self, number: int) -> None:
        """Teach one global batch."""
        lecture = self._lecture
        self._asking, whole = self.clocks.begin(number)
        batches = lecture.data.packed[number % len(lecture.data.packed)]
        counts = add_counts(batches)
        with whole.running():
            keys = dropout_keys(0, number, 0, len(batches), lecture.student.layers, lecture.device)
            for batch, own_keys in zip(batches, keys, strict=True):
                on_device = batch.to(lecture.device)
                terms = self._student(
                    on_device, self.terms, own_keys, self._capture(lecture.student)
                )
                normalised_loss(terms, counts).backward()  # type: ignore[no-untyped-call]
            self._update()

    def terms(self, outputs: Outputs, batch: Batch) -> list[Term]:
        """Return what the student is to learn of a micro-batch; the teacher is asked for it."""
        capture = self._capture(self._lecture.teacher)
        if self._learned == "relations":
            with torch.no_grad(), self._asking.running():
                states = self._teacher.states(batch, capture)
            return [self._compare(outputs, states, batch)]
        with torch.no_grad(), self._asking.running():
            taught: Outputs = self._teacher(batch, capture=capture)
        loss = _DEFAULT if self._learned == "default" else _DISTILBERT
        compared = self._compare(outputs, taught.states, batch)
        return [*soft_terms(loss, outputs, [taught], batch), compared]

    @property
    def learns_words(self) -> bool:
        """Whether both vocabularies are needed."""
        return self._learned != "relations"

    def _compare(self, outputs: Outputs, taught: States, batch: Batch) -> Term:
        last, theirs = self._lecture.student.layers, self._lecture.teacher.layers
        if self._learned == "distilbert":
            project = outputs.projections.get(PROJECTION, nn.Identity())
            states = project(outputs.states.hidden[last]), taught.hidden[theirs]
            total = cosine_sum(*states, batch.sample_ids > 0)
            return Term("loss/hidden_cosine", total, "tokens", 1.0)
        own, others = outputs.states.attention[last], taught.attention[theirs]
        heads, rows = self._lecture.relation_heads, (batch.sample_ids, batch.row_tokens)
        sums = [relation_kl_sum(x, y, heads, *rows) for x, y in zip(own, others, strict=True)]
        total = torch.stack(sums).sum()
        return Term("loss/relations", total, "tokens", 1.0)

    def _capture(self, shape: BertShape) -> Capture:
        last = frozenset([shape.layers])
        return Capture(hidden=last) if self._learned == "distilbert" else Capture(attention=last)

    def _make(self, shape: BertShape, seed: int) -> Bert:
        lecture = self._lecture
        model = Bert(shape)
        if shape is lecture.student and self._learned == "distilbert":
            model.projections.update(projection(lecture))
        initialise(model, seed)
        apply_backend(model, lecture.backend)
        return model.to(lecture.device, DTYPES[lecture.precision])


def projection(lecture: Lecture) -> dict[str, nn.Module]:
    """Return a map from the student's width to the teacher's, where these differ."""
    if lecture.student.width == lecture.teacher.width:
        return {}
    return {PROJECTION: nn.Linear(lecture.student.width, lecture.teacher.width)}
