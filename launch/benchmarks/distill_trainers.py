"""What trains in the distillation benchmark: our steps, and the usual ones of transformers.

Ours are put together from the losses of a run but without its recipe, which needs packages that a
GPU machine may lack; a test pins that both give the same terms. The peers are plain PyTorch on
padded rows: teacher in 16 bits where the precision is, student with fp32 weights under autocast,
losses averaged over a micro-batch, as published code has them.
Shapes: B rows, S tokens of a row, n real tokens, V vocabulary, D width, A relation heads.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from launch.benchmarks.trainers import (
    DTYPES,
    PackedTrainer,
    PaddedTrainer,
    Setting,
    build_bert,
    build_hf,
)
from pretrain.data.batch import Batch
from pretrain.distil.logit_losses import SoftLoss, soft_terms
from pretrain.losses.attention_kl import relation_kl_sum
from pretrain.losses.hidden import cosine_sum
from pretrain.losses.term import Term
from pretrain.model import Bert, BertShape, Outputs
from pretrain.model.captured_states import Capture, States
from pretrain.monitoring.device_timer import DeviceTimer
from pretrain.monitoring.flops import StepFlops, TeacherPass

# As in launch/recipes/student_default.yaml and student_6x768.yaml.
_DEFAULT = SoftLoss(temperature=1.0, divergence="forward", weight=0.1)
_DISTILBERT = SoftLoss(temperature=2.0, divergence="forward", weight=5.0, hard_weight=2.0)
_COSINE_WEIGHT = 1.0
PROJECTION = "to_teacher"
Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class DistillSetting(Setting):
    """What all sides share; `shape` is the student's."""

    teacher: BertShape
    relation_heads: int


class Ours(PackedTrainer):
    """Packed rows, fused operations, logits at masked tokens; one teacher, one student.

    The last part of the name says which losses: `default` (relations and soft targets),
    `relations` (no logits, neither of the student nor of the teacher) or `distilbert` (soft
    targets, MLM, cosine).
    """

    setting: DistillSetting

    def __init__(self, name: str, setting: DistillSetting) -> None:
        self._losses = name.rpartition("/")[2]
        super().__init__(name, setting)
        self.capture = self.capture_of(setting.shape)
        self.teacher_timer = DeviceTimer(setting.device)
        teacher = build_bert(setting.teacher, setting.backend, seed=1)
        teacher = teacher.to(setting.device, DTYPES[setting.precision])
        self.teacher = teacher.eval().requires_grad_(False)

    def build_model(self) -> Bert:
        """Return the student, with a projection where its hidden states are compared."""
        student = build_bert(self.setting.shape, self.setting.backend)
        if self._losses == "distilbert":
            student.projections.update(projection_of(self.setting))
        return student

    def terms(self, outputs: Outputs, batch: Batch) -> list[Term]:
        """Return the loss terms of a micro-batch; the teacher runs here."""
        assert self.teacher_timer
        capture = self.capture_of(self.setting.teacher)
        with torch.no_grad(), self.teacher_timer.running():
            if self._losses == "relations":
                states = self.teacher.states(batch, capture)
            else:
                teacher_outputs: Outputs = self.teacher(batch, capture=capture)
                states = teacher_outputs.states
        compared = self._compare(outputs, states, batch)
        if self._losses == "relations":
            return [compared]
        loss = _DEFAULT if self._losses == "default" else _DISTILBERT
        return [*soft_terms(loss, outputs, [teacher_outputs], batch), compared]

    def flops(self, counts: dict[str, int]) -> int:
        """Return the operations that these counts need, those of the losses not counted."""
        with_logits = self._losses != "relations"
        needed = counts if with_logits else {**counts, "masked": 0}
        teacher = TeacherPass(self.setting.teacher, with_logits)
        return StepFlops(trained=self.setting.shape).of_step(needed, [teacher])

    def capture_of(self, shape: BertShape) -> Capture:
        """Return the states of a model that are compared: those of its last layer."""
        last = frozenset([shape.layers])
        return Capture(hidden=last) if self._losses == "distilbert" else Capture(attention=last)

    def _compare(self, outputs: Outputs, teacher: States, batch: Batch) -> Term:
        last, teacher_last = self.setting.shape.layers, self.setting.teacher.layers
        if self._losses == "distilbert":
            project = outputs.projections.get(PROJECTION, nn.Identity())
            states = project(outputs.states.hidden[last]), teacher.hidden[teacher_last]
            total = cosine_sum(*states, batch.sample_ids > 0)
            return Term("loss/hidden_cosine", total, "tokens", _COSINE_WEIGHT)
        pairs = zip(outputs.states.attention[last], teacher.attention[teacher_last], strict=True)
        heads, rows = self.setting.relation_heads, (batch.sample_ids, batch.row_tokens)
        sums = [relation_kl_sum(x, y, heads, *rows) for x, y in pairs]
        return Term("loss/relations", torch.stack(sums).sum(), "tokens", 1.0)


class _Peer(PaddedTrainer):
    """A teacher and a student on padded rows; subclasses say what of them is compared."""

    setting: DistillSetting
    teacher_timer: DeviceTimer

    def __init__(self, name: str, setting: DistillSetting, kind: str) -> None:
        super().__init__(name, setting, kind)
        self.teacher_timer = DeviceTimer(setting.device)
        teacher = build_hf(kind, setting.teacher).to(setting.device, DTYPES[setting.precision])
        self.teacher = teacher.eval().requires_grad_(False)

    def loss(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the mean distillation loss of a micro-batch, a scalar."""
        names = ("input_ids", "token_type_ids", "attention_mask")
        shown = {name: inputs[name] for name in names}
        with self.teacher_timer.running(), torch.no_grad():
            teacher = self.forward(self.teacher, shown)
        with self.autocast():
            student = self.forward(self.model, shown)
        return self.distance(student, teacher, inputs)

    @abstractmethod
    def forward(self, model: Any, shown: Inputs) -> Any:
        """Return what is compared, of one model."""

    @abstractmethod
    def distance(self, student: Any, teacher: Any, inputs: Inputs) -> torch.Tensor:
        """Return the mean loss of a micro-batch, a scalar."""


class AllTokens(_Peer):
    """DistilBERT's step as in its published code: logits of all tokens, of both models."""

    def __init__(self, name: str, setting: DistillSetting) -> None:
        super().__init__(name, setting, "BertForMaskedLM")
        project = projection_of(setting).get(PROJECTION, nn.Identity())
        self._project = project.to(setting.device)
        self.trained.append(self._project)

    def forward(self, model: Any, shown: Inputs) -> Any:
        """Return the logits and hidden states."""
        return model(**shown, output_hidden_states=True)

    def distance(self, student: Any, teacher: Any, inputs: Inputs) -> torch.Tensor:
        """Return DistilBERT's loss."""
        hidden_BSD = self._project(student.hidden_states[-1].float())
        teacher_BSD = teacher.hidden_states[-1]
        return distilbert_loss(student.logits, teacher.logits, hidden_BSD, teacher_BSD, inputs)


class Materialised(_Peer):
    """MiniLMv2's step with every relation in memory; models without heads, last layers compared."""

    def __init__(self, name: str, setting: DistillSetting) -> None:
        super().__init__(name, setting, "BertModel")
        self._captured: dict[Any, list[torch.Tensor]] = {self.teacher: [], self.model: []}
        for model, captured in self._captured.items():
            attention = model.encoder.layer[-1].attention.self
            for part in (attention.query, attention.key, attention.value):
                part.register_forward_hook(lambda _m, _i, out, kept=captured: kept.append(out))

    def forward(self, model: Any, shown: Inputs) -> list[torch.Tensor]:
        """Return queries, keys and values of the last layer."""
        model(**shown)
        found = list(self._captured[model])
        self._captured[model].clear()  # or they stay in memory until the next step
        return found

    def distance(self, student: Any, teacher: Any, inputs: Inputs) -> torch.Tensor:
        """Return MiniLMv2's loss."""
        mask_BS = inputs["attention_mask"]
        return relation_loss(student, teacher, mask_BS, self.setting.relation_heads)


def distilbert_loss(
    logits_BSV: torch.Tensor,
    teacher_BSV: torch.Tensor,
    hidden_BSD: torch.Tensor,
    teacher_BSD: torch.Tensor,
    inputs: Inputs,
) -> torch.Tensor:
    """Return DistilBERT's loss (arXiv 1910.01108): soft targets and cosine at all real tokens."""
    real_BS = inputs["attention_mask"].bool()
    temperature = _DISTILBERT.temperature
    soft = F.kl_div(
        F.log_softmax(logits_BSV[real_BS].float() / temperature, dim=-1),
        F.softmax(teacher_BSV[real_BS].float() / temperature, dim=-1),
        reduction="batchmean",
    )
    hard = F.cross_entropy(logits_BSV.flatten(0, 1).float(), inputs["labels"].flatten())
    hidden_nD, teacher_nD = hidden_BSD[real_BS].float(), teacher_BSD[real_BS].float()
    cosine = F.cosine_embedding_loss(hidden_nD, teacher_nD, hidden_nD.new_ones(len(hidden_nD)))
    weighted = _DISTILBERT.weight * temperature**2 * soft + (_DISTILBERT.hard_weight or 0) * hard
    return weighted + _COSINE_WEIGHT * cosine


def relation_loss(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    mask_BS: torch.Tensor,
    heads: int,
) -> torch.Tensor:
    """Return MiniLMv2's loss (arXiv 2012.15828): every relation as a whole in fp32, [B, A, S, S].

    Args:
        student, teacher: queries, keys and values of a layer, [B, S, D].
        mask_BS: 1 for real tokens.
        heads: A.
    """
    losses = []
    for student_BSD, teacher_BSD in zip(student, teacher, strict=True):
        own, theirs = (_relations(x, mask_BS, heads) for x in (student_BSD, teacher_BSD))
        gaps_BAS = F.kl_div(own, theirs, reduction="none", log_target=True).sum(-1)
        losses.append((gaps_BAS.mean(1) * mask_BS).sum() / mask_BS.sum())
    return torch.stack(losses).sum()


def _relations(hidden_BSD: torch.Tensor, mask_BS: torch.Tensor, heads: int) -> torch.Tensor:
    parts = hidden_BSD.float().reshape(*mask_BS.shape, heads, -1).transpose(1, 2)
    scores = parts @ parts.transpose(-1, -2) / parts.shape[-1] ** 0.5
    # The lowest number and not minus infinity: what is left out is then 0 times a finite number.
    hidden = mask_BS[:, None, None, :] == 0
    return F.log_softmax(scores.masked_fill(hidden, torch.finfo(scores.dtype).min), dim=-1)


def projection_of(setting: DistillSetting) -> dict[str, nn.Module]:
    """Return a map from the student's width to the teacher's, where these differ."""
    if setting.shape.width == setting.teacher.width:
        return {}
    return {PROJECTION: nn.Linear(setting.shape.width, setting.teacher.width)}
