"""What distillation usually looks like: models of transformers on padded rows, in plain PyTorch.

Teacher in 16 bits where the precision is, student with fp32 weights under autocast, SDPA, no
dropout inside attention. Losses are means over a micro-batch, as such code has them.
Shapes: B rows, S places of a row, n real tokens, V vocabulary, D width, A relation heads.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from launch.benchmarks.distill_sides import PROJECTION, Clocks, Lecture, projection
from launch.benchmarks.train_sides import DTYPES, Update
from pretrain.model import BertShape
from pretrain.model.hf_conversion import to_hf_config

Inputs = Mapping[str, torch.Tensor]
_TEMPERATURE = 2.0
_SOFT, _HARD, _COSINE = 5.0, 2.0, 1.0


def distilbert_loss(
    logits_BSV: torch.Tensor,
    taught_BSV: torch.Tensor,
    hidden_BSD: torch.Tensor,
    taught_BSD: torch.Tensor,
    inputs: Inputs,
) -> torch.Tensor:
    """Return DistilBERT's loss (arXiv 1910.01108): soft targets and cosine at all real tokens."""
    real_BS = inputs["attention_mask"].bool()
    soft = F.kl_div(
        F.log_softmax(logits_BSV[real_BS].float() / _TEMPERATURE, dim=-1),
        F.softmax(taught_BSV[real_BS].float() / _TEMPERATURE, dim=-1),
        reduction="batchmean",
    )
    hard = F.cross_entropy(logits_BSV.flatten(0, 1).float(), inputs["labels"].flatten())
    hidden_nD, taught_nD = hidden_BSD[real_BS].float(), taught_BSD[real_BS].float()
    cosine = F.cosine_embedding_loss(hidden_nD, taught_nD, hidden_nD.new_ones(len(hidden_nD)))
    return _SOFT * _TEMPERATURE**2 * soft + _HARD * hard + _COSINE * cosine


def relation_loss(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    mask_BS: torch.Tensor,
    heads: int,
) -> torch.Tensor:
    """Return MiniLMv2's loss (arXiv 2012.15828): every relation as a whole in fp32, [B, A, S, S].

    Args:
        student, teacher: queries, keys and values of a layer, [B, S, D].
        mask_BS: 1 where a token lies.
        heads: A.
    """
    losses = []
    for own_BSD, theirs_BSD in zip(student, teacher, strict=True):
        own, theirs = (_relations(x, mask_BS, heads) for x in (own_BSD, theirs_BSD))
        gaps_BAS = F.kl_div(own, theirs, reduction="none", log_target=True).sum(-1)
        losses.append((gaps_BAS.mean(1) * mask_BS).sum() / mask_BS.sum())
    return torch.stack(losses).sum()


def _relations(hidden_BSD: torch.Tensor, mask_BS: torch.Tensor, heads: int) -> torch.Tensor:
    parts = hidden_BSD.float().reshape(*mask_BS.shape, heads, -1).transpose(1, 2)
    scores = parts @ parts.transpose(-1, -2) / parts.shape[-1] ** 0.5
    # The lowest number and not minus infinity: what is left out is then 0 times a finite number.
    hidden = mask_BS[:, None, None, :] == 0
    return F.log_softmax(scores.masked_fill(hidden, torch.finfo(scores.dtype).min), dim=-1)


class _Peer(ABC):
    """A teacher and a student on padded rows; what they are compared in is a matter of the kind."""

    def __init__(self, name: str, lecture: Lecture, kind: str) -> None:
        self.name = name
        self.clocks = Clocks(lecture.device)
        self._lecture = lecture
        teacher = _build(kind, lecture.teacher).to(lecture.device, DTYPES[lecture.precision])
        self._teacher = teacher.eval().requires_grad_(False)
        self._student = _build(kind, lecture.student).to(lecture.device).train()
        self._trained = nn.ModuleList([self._student])

    def step(self, number: int) -> None:
        """Teach one global batch."""
        lecture = self._lecture
        asking, whole = self.clocks.begin(number)
        batches = lecture.data.padded[number % len(lecture.data.padded)]
        with whole.running():
            for batch in batches:
                inputs = {
                    name: tensor.to(lecture.device, non_blocking=True)
                    for name, tensor in batch.inputs.items()
                }
                with asking.running(), torch.no_grad():
                    taught = self._ask(self._teacher, inputs)
                with self._autocast():
                    own = self._ask(self._student, inputs)
                loss = self._loss(own, taught, inputs)
                (loss / len(batches)).backward()  # type: ignore[no-untyped-call]
            self._update()

    def _autocast(self) -> torch.autocast:
        precision = self._lecture.precision
        kind = self._lecture.device.type
        return torch.autocast(kind, DTYPES[precision], enabled=precision != "fp32")

    @cached_property
    def _update(self) -> Update:
        return Update(self._trained)

    @abstractmethod
    def _ask(self, model: Any, inputs: Inputs) -> Any:
        """Return what is compared, of one model."""

    @abstractmethod
    def _loss(self, own: Any, taught: Any, inputs: Inputs) -> torch.Tensor:
        """Return the mean loss of a micro-batch, a scalar."""


class AllTokens(_Peer):
    """DistilBERT's step as its published code has it: logits of all tokens, of both models."""

    def __init__(self, name: str, lecture: Lecture) -> None:
        super().__init__(name, lecture, "BertForMaskedLM")
        parts = projection(lecture)
        self._project = parts.get(PROJECTION, nn.Identity()).to(lecture.device)
        self._trained.append(self._project)

    def _ask(self, model: Any, inputs: Inputs) -> Any:
        return model(**_shown(inputs), output_hidden_states=True)

    def _loss(self, own: Any, taught: Any, inputs: Inputs) -> torch.Tensor:
        hidden_BSD = self._project(own.hidden_states[-1].float())
        last_BSD = taught.hidden_states[-1]
        return distilbert_loss(own.logits, taught.logits, hidden_BSD, last_BSD, inputs)


class Materialised(_Peer):
    """MiniLMv2's step with every relation in memory; models without heads, last layers compared."""

    def __init__(self, name: str, lecture: Lecture) -> None:
        super().__init__(name, lecture, "BertModel")
        self._seen: dict[Any, list[torch.Tensor]] = {self._teacher: [], self._student: []}
        for model, seen in self._seen.items():
            attention = model.encoder.layer[-1].attention.self
            for part in (attention.query, attention.key, attention.value):
                part.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))

    def _ask(self, model: Any, inputs: Inputs) -> list[torch.Tensor]:
        model(**_shown(inputs))
        found = list(self._seen[model])
        self._seen[model].clear()  # or they stay in memory until the next step
        return found

    def _loss(self, own: Any, taught: Any, inputs: Inputs) -> torch.Tensor:
        heads = self._lecture.relation_heads
        return relation_loss(own, taught, inputs["attention_mask"], heads)


def _shown(inputs: Inputs) -> dict[str, torch.Tensor]:
    return {name: inputs[name] for name in ("input_ids", "token_type_ids", "attention_mask")}


def _build(kind: str, shape: BertShape) -> Any:
    import transformers

    # Ours has no dropout inside attention either; with it, flash kernels would do more work.
    fields = to_hf_config(shape) | {"attention_probs_dropout_prob": 0.0}
    torch.manual_seed(shape.layers)
    build: Any = getattr(transformers, kind)._from_config
    options = {"add_pooling_layer": False} if kind == "BertModel" else {}
    return build(transformers.BertConfig(**fields), attn_implementation="sdpa", **options)
