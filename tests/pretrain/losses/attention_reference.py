"""Attention losses in plain fp64: one sample and head at a time, attention materialised.

Nothing here is shared with what it checks; gradients are those of automatic differentiation.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from pretrain.losses.attention_kl import relation_kl_sum
from pretrain.losses.attention_score_mse import score_mse_sum
from pretrain.losses.attention_tiles import tiled_kl_sum
from pretrain.losses.head_layout import QueryKey

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Largest relative error of a rounding to the nearest.
UNIT = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}

# Lengths of the samples of each row; the rest is padding. One has no sample, one a single
# sample that fills it, one samples of a single token.
SHORT = (13, [[5, 4, 1], [13], [], [2, 1, 1]])
# Samples that end with a block of 64 positions, span two and three of them, or lie within one.
LONG = (150, [[70, 3, 64], [150], [1, 63, 64, 20], [10] * 14])

Models = Sequence[torch.Tensor]  # query and key, or what is compared with itself


class Objective(NamedTuple):
    ours: Callable[..., torch.Tensor]
    plain: Callable[[Models, Models, int, torch.Tensor, int], torch.Tensor]
    tensors: int  # of each model


def positions_of_samples(ids_N: torch.Tensor, row_tokens: int) -> Iterator[torch.Tensor]:
    for row, ids in enumerate(ids_N.view(-1, row_tokens).tolist()):
        for sample in sorted(set(ids) - {0}):
            owned = [row * row_tokens + i for i, owner in enumerate(ids) if owner == sample]
            yield torch.tensor(owned, device=ids_N.device)


def scores(model: Models, positions: torch.Tensor, head: int, heads: int) -> torch.Tensor:
    """Return q k' / √d of one sample and head."""
    width = model[0].shape[1] // heads
    query, key = (x[positions][:, head * width : (head + 1) * width] for x in (model[0], model[-1]))
    return query @ key.T / width**0.5


def plain_divergence(
    student: Models, teacher: Models, heads: int, ids_N: torch.Tensor, row_tokens: int
) -> torch.Tensor:
    total = student[0].sum() * 0
    for positions in positions_of_samples(ids_N, row_tokens):
        for head in range(heads):
            log_p, log_q = (
                torch.log_softmax(scores(model, positions, head, heads), -1)
                for model in (teacher, student)
            )
            total = total + (log_p.exp() * (log_p - log_q)).sum() / heads
    return total


def plain_score_mse(
    student: Models, teacher: Models, heads: int, ids_N: torch.Tensor, row_tokens: int
) -> torch.Tensor:
    total = student[0].sum() * 0
    for positions in positions_of_samples(ids_N, row_tokens):
        for head in range(heads):
            ours, theirs = (scores(model, positions, head, heads) for model in (student, teacher))
            total = total + len(positions) * (ours - theirs).square().mean() / heads
    return total


OBJECTIVES = {
    "attention": Objective(tiled_kl_sum, plain_divergence, 2),
    "values": Objective(relation_kl_sum, plain_divergence, 1),
    "relations": Objective(relation_kl_sum, plain_divergence, 1),
    "scores": Objective(score_mse_sum, plain_score_mse, 2),
}


class Case(NamedTuple):
    """Inputs of an attention loss."""

    objective: Objective
    student: list[torch.Tensor]
    teacher: list[torch.Tensor]
    heads: int
    ids_N: torch.Tensor
    row_tokens: int

    def ours(self, **options: int) -> torch.Tensor:
        # A loss on queries and keys takes both of a model together.
        student, teacher = (
            QueryKey(*model) if len(model) == 2 else model[0]
            for model in (self.student, self.teacher)
        )
        layout = self.heads, self.ids_N, self.row_tokens
        return self.objective.ours(student, teacher, *layout, **options)

    def on_cpu(self) -> "Case":
        """Return the case on the CPU, where nothing is compiled and every tensor is visible."""
        student = [x.detach().cpu().requires_grad_() for x in self.student]
        teacher = [x.cpu() for x in self.teacher]
        return self._replace(student=student, teacher=teacher, ids_N=self.ids_N.cpu())

    def exact(self) -> tuple[float, list[torch.Tensor]]:
        """Return value and gradients in fp64."""
        student = [x.detach().double().requires_grad_() for x in self.student]
        teacher = [x.detach().double() for x in self.teacher]
        value = self.objective.plain(student, teacher, self.heads, self.ids_N, self.row_tokens)
        return value.item(), list(torch.autograd.grad(value, student))

    def gradients(self, upstream: float = 1.0, **options: int) -> list[torch.Tensor]:
        return list(torch.autograd.grad(self.ours(**options) * upstream, self.student))


def ids_of(row_tokens: int, rows: list[list[int]]) -> torch.Tensor:
    ids = torch.zeros(len(rows), row_tokens, dtype=torch.int32)
    for row, lengths in enumerate(rows):
        owners = torch.repeat_interleave(torch.tensor(lengths, dtype=torch.int64))
        ids[row, : len(owners)] = owners.int() + 1
    return ids.flatten().to(DEVICE)


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return numbers that every type holds exactly, so that inputs have no rounding."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)
    # bf16 keeps less digits than fp16, and 2^-14 is the least fp16 has with all of its digits.
    return torch.where(drawn.abs() < 2.0**-14, 0.0, drawn).to(DEVICE, dtype)


def make_case(
    name: str,
    packing: tuple[int, list[list[int]]] = SHORT,
    heads: int = 3,
    widths: tuple[int, int] = (6, 15),
    dtype: torch.dtype = torch.float32,
) -> Case:
    """Return a case with random numbers; padding has numbers like everything else."""
    row_tokens, rows = packing
    objective, positions = OBJECTIVES[name], row_tokens * len(rows)
    seeds = range(objective.tensors)
    student = [draw(positions, widths[0], seed=i, dtype=dtype).requires_grad_() for i in seeds]
    teacher = [draw(positions, widths[1], seed=10 + i, dtype=dtype) for i in seeds]
    return Case(objective, student, teacher, heads, ids_of(row_tokens, rows), row_tokens)
