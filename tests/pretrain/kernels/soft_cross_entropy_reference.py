"""Two vocabulary heads drawn at random, and their soft and hard losses in fp64."""

from typing import NamedTuple, get_args

import torch

from pretrain.data.batch import IGNORE_INDEX
from pretrain.kernels.soft_cross_entropy import Divergence, Head

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


DIVERGENCES = get_args(Divergence)


class Case(NamedTuple):
    student: Head
    teacher: Head
    labels_M: torch.Tensor


class Exact(NamedTuple):
    """Sums and gradients in fp64."""

    total: float
    soft: float
    hard: float
    correct: float
    gradients: tuple[torch.Tensor, ...]


def draw(
    tokens: int,
    width: int,
    teacher_width: int,
    vocabulary: int,
    dtype: torch.dtype = torch.float32,
    decoder: torch.dtype | None = None,
) -> Case:
    """Return heads whose numbers every type represents exactly; every third token has no label."""
    generator = torch.Generator().manual_seed(tokens + width + vocabulary)

    def numbers(*shape: int, of: torch.dtype, size: float) -> torch.Tensor:
        drawn = (size * torch.randn(shape, generator=generator)).to(torch.bfloat16)
        # bf16 has fewer digits than fp16, and 2^-14 is the smallest normal number of fp16.
        return torch.where(drawn.abs() < 2.0**-14, 0.0, drawn).to(DEVICE, of)

    def head(width: int) -> Head:
        return Head(
            numbers(tokens, width, of=dtype, size=1.0).requires_grad_(),
            numbers(vocabulary, width, of=decoder or dtype, size=2 / width**0.5).requires_grad_(),
            numbers(vocabulary, of=decoder or dtype, size=1.0).requires_grad_(),
        )

    labels_M = torch.randint(vocabulary, (tokens,), generator=generator)
    labels_M[2::3] = IGNORE_INDEX
    return Case(head(width), head(teacher_width), labels_M.to(DEVICE))


def exact(case: Case, temperature: float, divergence: str, soft: float, hard: float) -> Exact:
    """Compute the losses by formula in fp64, and their gradients by autograd."""
    has_label = case.labels_M != IGNORE_INDEX
    student = [x.detach().double().requires_grad_() for x in case.student]
    z_S = (student[0] @ student[1].T + student[2])[has_label]
    z_T = (case.teacher[0].double() @ case.teacher[1].double().T + case.teacher[2])[
        has_label
    ].detach()

    def softmax(z: torch.Tensor) -> torch.Tensor:
        powers = (z - z.detach().amax(dim=1, keepdim=True)).exp()
        return powers / powers.sum(dim=1, keepdim=True)

    p, q = softmax(z_T / temperature), softmax(z_S / temperature)
    forward, reverse = (p * (p / q).log()).sum(), (q * (q / p).log()).sum()
    mixed = {"forward": forward, "reverse": reverse, "symmetric": 0.5 * forward + 0.5 * reverse}
    soft_loss = temperature**2 * mixed[divergence]
    labels = case.labels_M[has_label]
    hard_loss = -softmax(z_S)[torch.arange(len(labels), device=DEVICE), labels].log().sum()
    total = soft * soft_loss + hard * hard_loss
    correct = int((z_S.argmax(dim=1) == labels).sum())
    gradients = torch.autograd.grad(total, student)
    return Exact(total.item(), soft_loss.item(), hard_loss.item(), correct, gradients)


class Errors(NamedTuple):
    """Relative errors of a gradient by norm, against fp64."""

    found: float
    rounded: float  # of the fp64 gradient, rounded once to the returned type


def relative_errors(case: Case, expected: Exact, upstream: float = 1.0) -> list[Errors]:
    """Return the errors of each gradient of the student, after checking its type."""
    errors = []
    for x, gradient in zip(case.student, expected.gradients, strict=True):
        assert x.grad is not None and x.grad.dtype == x.dtype
        differences = (
            y.double() - gradient for y in (x.grad.double() / upstream, gradient.to(x.dtype))
        )
        errors.append(
            Errors(*(float(y.norm() / gradient.norm().clamp(min=1e-2)) for y in differences))
        )
    assert all(x.grad is None for x in case.teacher)
    return errors
