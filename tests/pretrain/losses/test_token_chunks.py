"""Sums in chunks of tokens: values and gradients of the whole, from the memory of a chunk."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pretrain.data.batch import IGNORE_INDEX
from pretrain.distil.logit_losses import SoftLoss, _sums
from pretrain.kernels.dispatch import choose_kernels
from pretrain.kernels.soft_cross_entropy import Divergence, Head, SoftCrossEntropy
from pretrain.losses import token_chunks
from pretrain.losses.token_chunks import chunk_bytes, rows_of_chunk
from tests.cpu_memory import measure_memory

TOKENS, WIDTH, VOCABULARY, ROWS = 300, 24, 2003, 32
CPU = torch.device("cpu")


class Outputs:
    """The only field of a model's outputs that these losses read."""

    kernels = choose_kernels("reference", "reference", CPU)


@pytest.fixture
def in_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Limit chunks to fewer tokens than there are; the last one is smaller."""
    monkeypatch.setattr(token_chunks, "BUDGET_BYTES", ROWS * chunk_bytes(1, VOCABULARY))
    assert rows_of_chunk(VOCABULARY) == ROWS and TOKENS % ROWS
    yield monkeypatch


def draw(teachers: int, dtype: torch.dtype = torch.float32) -> tuple[list[Head], torch.Tensor]:
    """Return the heads of a student and its teachers, and labels, every fifth of which is none."""
    generator = torch.Generator().manual_seed(0)

    def head(needs_grad: bool) -> Head:
        sizes = (TOKENS, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,)
        drawn = (0.4 * torch.randn(size, generator=generator) for size in sizes)
        return Head(*(x.to(dtype).requires_grad_(needs_grad) for x in drawn))

    labels_M = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    labels_M[::5] = IGNORE_INDEX
    return [head(True), *(head(False) for _ in range(teachers))], labels_M


def compute(
    heads: list[Head], labels_M: torch.Tensor, divergence: Divergence = "forward"
) -> SoftCrossEntropy:
    loss = SoftLoss(2.0, divergence, 5.0, hard_weight=2.0)
    return _sums(loss, Outputs(), heads, labels_M)  # type: ignore[arg-type]


@pytest.mark.parametrize("divergence", ["forward", "reverse", "symmetric"])
@pytest.mark.parametrize("teachers", [1, 2, 3])
def test_chunks_match_whole(
    teachers: int, divergence: Divergence, in_chunks: pytest.MonkeyPatch
) -> None:
    """Sums and gradients are those of fp64 without chunks, up to rounding."""
    heads, labels_M = draw(teachers)
    found = compute(heads, labels_M, divergence)
    (3.0 * found.total).backward()
    in_chunks.undo()
    wide = [Head(*(x.detach().double() for x in head)) for head in heads]
    student = Head(*(x.requires_grad_() for x in wide[0]))
    expected = compute([student, *wide[1:]], labels_M, divergence)
    (3.0 * expected.total).backward()
    for one, other in zip(found, expected, strict=True):
        assert one.item() == pytest.approx(other.item(), rel=1e-6)
    for x, y in zip(heads[0], student, strict=True):
        assert x.grad is not None and y.grad is not None and x.grad.dtype == torch.float32
        # A rounding is 6e-8; some hundred numbers are added.
        assert (x.grad - y.grad).norm() < 1e-6 * y.grad.norm()


def test_chunks_keep_16_bit_gradients(in_chunks: pytest.MonkeyPatch) -> None:
    """Heads in bf16 have gradients in bf16, off by about a rounding."""
    heads, labels_M = draw(2, torch.bfloat16)
    compute(heads, labels_M).total.backward()
    in_chunks.undo()
    wide = [Head(*(x.detach().double() for x in head)) for head in heads]
    student = Head(*(x.requires_grad_() for x in wide[0]))
    compute([student, *wide[1:]], labels_M).total.backward()
    for x, y in zip(heads[0], student, strict=True):
        assert x.grad is not None and y.grad is not None and x.grad.dtype == torch.bfloat16
        # Rounded for each chunk and once more: 2^-9 at most, each, and less by norm.
        assert (x.grad - y.grad).norm() < 2.0**-8 * y.grad.norm()


def test_chunks_without_gradient(in_chunks: pytest.MonkeyPatch) -> None:
    """Without gradients the sums are the same, and need none."""
    heads, labels_M = draw(2)
    expected = compute(heads, labels_M)
    with torch.no_grad():
        found = compute(heads, labels_M)
    assert expected.total.requires_grad and not found.total.requires_grad
    assert torch.equal(torch.stack(found), torch.stack(expected).detach())


class _Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor."""

    elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


@pytest.mark.parametrize("divergence", ["forward", "reverse", "symmetric"])
@pytest.mark.parametrize("teachers", [1, 3])
def test_chunk_memory_is_bounded(
    teachers: int, divergence: Divergence, in_chunks: pytest.MonkeyPatch
) -> None:
    """No tensor holds all tokens and the vocabulary, and a chunk fits into its budget."""
    heads, labels_M = draw(teachers)
    with _Largest() as forward:
        total = compute(heads, labels_M, divergence).total
    with _Largest() as backward:
        total.backward()
    assert max(forward.elements, backward.elements) == VOCABULARY * max(ROWS, WIDTH)
    allocated = measure_memory(lambda: compute(heads, labels_M, divergence))
    # Gradients of the decoder exist twice, as sums and of the chunk.
    decoder = 4 * VOCABULARY * (WIDTH + 1)
    space = allocated.peak - allocated.held - decoder
    assert 0.7 * chunk_bytes(TOKENS, VOCABULARY) < space < chunk_bytes(TOKENS, VOCABULARY)
