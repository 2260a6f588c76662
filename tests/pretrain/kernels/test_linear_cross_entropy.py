"""The vocabulary head and its loss, reference and Triton kernel, each against numpy in fp64."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pretrain.data.batch import IGNORE_INDEX
from pretrain.kernels.linear_cross_entropy import linear_cross_entropy as reference
from pretrain.kernels.triton.linear_cross_entropy import linear_cross_entropy as fused
from pretrain.kernels.triton.vocabulary import chunk_rows

Array = npt.NDArray[np.float64]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Tokens, width, vocabulary: the smallest; odd ones; three chunks of the smallest budget; and a
# vocabulary larger than the block of the kernel.
SIZES = [(1, 1, 1), (5, 7, 3), (140, 33, 201), (3, 16, 9001)]
# Largest relative error of a rounding to the nearest.
UNIT = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


class Head(NamedTuple):
    hidden_MD: torch.Tensor
    weight_VD: torch.Tensor
    bias_V: torch.Tensor
    labels_M: torch.Tensor


class Exact(NamedTuple):
    """The results of a head in fp64, and the softmax and gradients that bound its errors."""

    loss: float
    correct: float
    gradients: tuple[Array, Array, Array]  # of hidden, weight and bias
    share_MV: Array  # softmax, 0 for tokens without a label
    gradient_MV: Array  # of the logits


def draw(
    tokens: int,
    width: int,
    vocabulary: int,
    dtype: torch.dtype = torch.float32,
    decoder: torch.dtype | None = None,
) -> Head:
    """Return a head whose numbers every type represents exactly; every third token has no label."""
    generator = torch.Generator().manual_seed(tokens + width + vocabulary)

    def numbers(*shape: int, of: torch.dtype) -> torch.Tensor:
        drawn = torch.randn(shape, generator=generator).to(torch.bfloat16)
        # bf16 has fewer digits than fp16, and 2^-14 is the smallest normal number of fp16.
        drawn = torch.where(drawn.abs() < 2.0**-14, 0.0, drawn)
        return drawn.to(DEVICE, of).requires_grad_()

    labels_M = torch.randint(vocabulary, (tokens,), generator=generator)
    labels_M[2::3] = IGNORE_INDEX
    return Head(
        numbers(tokens, width, of=dtype),
        numbers(vocabulary, width, of=decoder or dtype),
        numbers(vocabulary, of=decoder or dtype),
        labels_M.to(DEVICE),
    )


def exact(head: Head) -> Exact:
    hidden, weight, bias = (x.detach().double().cpu().numpy() for x in head[:3])
    labels = head.labels_M.cpu().numpy()
    has_label = labels != IGNORE_INDEX
    logits = hidden @ weight.T + bias
    shifted = logits - logits.max(axis=1, initial=-1e300, keepdims=True)
    share = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True) * has_label[:, None]
    one_hot = np.zeros_like(share)
    one_hot[has_label, labels[has_label]] = 1.0
    gradient = share - one_hot
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return Exact(
        loss=float((log_sum - (shifted * one_hot).sum(axis=1))[has_label].sum()),
        correct=float((logits.argmax(axis=1) == labels)[has_label].sum()),
        gradients=(gradient @ weight, gradient.T @ hidden, gradient.sum(axis=0)),
        share_MV=share,
        gradient_MV=gradient,
    )


def gradients_of(head: Head) -> list[Array]:
    grads = [x.grad for x in head[:3]]
    assert [g.dtype for g in grads] == [x.dtype for x in head[:3]]
    return [g.double().cpu().numpy() for g in grads]


def assert_equals_exact(head: Head, loss_of: Any, upstream: float = 1.0, **options: Any) -> None:
    """Compare an fp32 head with fp64.

    fp32 sums have a relative error of 6e-8 per addition, here of a few hundred signed numbers.
    """
    loss, correct = loss_of(*head, **options)
    (loss * upstream).backward()
    expected = exact(head)
    assert loss.dtype == correct.dtype == torch.float32
    assert not correct.requires_grad
    assert loss.item() == pytest.approx(expected.loss, rel=2e-6, abs=1e-5)
    assert correct.item() == expected.correct
    for actual, gradient in zip(gradients_of(head), expected.gradients, strict=True):
        size = max(abs(gradient).max(initial=0), 1e-2)
        np.testing.assert_allclose(actual, upstream * gradient, rtol=0, atol=4e-6 * upstream * size)


@pytest.mark.parametrize("size", SIZES)
def test_linear_ce_reference_matches_fp64(size: tuple[int, int, int]) -> None:
    """Loss, accuracy and gradients of the reference equal those in fp64, up to rounding."""
    assert_equals_exact(draw(*size), reference)


@pytest.mark.parametrize("size", SIZES)
def test_linear_ce_kernel_matches_fp64(size: tuple[int, int, int]) -> None:
    """Loss, accuracy and gradients of the kernel equal those in fp64, up to rounding."""
    assert_equals_exact(draw(*size), fused, budget_bytes=1)


@pytest.mark.parametrize("upstream", [1e-6, 3e4])
def test_linear_ce_scales_with_upstream(upstream: float) -> None:
    """Gradients scale with the upstream gradient."""
    assert_equals_exact(draw(5, 7, 40), fused, upstream)


@pytest.mark.parametrize("loss_of", [reference, fused])
def test_linear_ce_without_labels_is_zero(loss_of: Any) -> None:
    """Without labels or tokens, loss and gradients are 0."""
    empty, ignored = draw(0, 7, 40), draw(4, 7, 40)
    ignored.labels_M.fill_(IGNORE_INDEX)
    for head in (empty, ignored):
        loss, correct = loss_of(*head)
        loss.backward()
        assert (loss.item(), correct.item()) == (0.0, 0.0)
        assert not any(gradient.any() for gradient in gradients_of(head))


def test_linear_ce_ignores_unlabelled_tokens() -> None:
    """Tokens without a label do not change the loss, even if they overflow."""
    head = draw(6, 7, 40)
    with torch.no_grad():
        head.hidden_MD[2] = torch.inf
        # The products compute 0 · inf for gradients, so only the loss is compared.
        loss = fused(*head).loss
        head.hidden_MD[2] = 0.0
        assert loss.item() == fused(*head).loss.item()


def assert_within_rounding(head: Head, upstream: float = 1.0) -> None:
    """Compare a head in bf16 or fp16 with fp64, element by element, by a bound on its errors.

    The logits are rounded, which doubles in the softmax; then their gradients are rounded (the
    interpreter truncates where a GPU rounds to nearest: twice the error), and then the results.
    Everything between is fp32.
    """
    loss, correct = fused(*head, budget_bytes=1)
    (loss * upstream).backward()
    expected = exact(head)
    hidden, weight = (x.detach().double().cpu().numpy() for x in head[:2])
    unit = UNIT[head.hidden_MD.dtype]
    logit_error_M1 = (unit + 1e-5) * abs(hidden @ weight.T).max(axis=1, keepdims=True)
    error_MV = expected.share_MV * np.expm1(2 * logit_error_M1) + 2 * unit * abs(
        expected.gradient_MV
    )
    errors = (error_MV @ abs(weight), error_MV.T @ abs(hidden), error_MV.sum(axis=0))
    assert abs(loss.item() - expected.loss) <= 2 * logit_error_M1.sum()
    for actual, gradient, error in zip(gradients_of(head), expected.gradients, errors, strict=True):
        bound = upstream * (error * (1 + unit) + unit * abs(gradient))
        assert (
            bound.max() < 0.5 * upstream * abs(gradient).max()
        )  # otherwise the test would be vacuous
        assert (abs(actual - upstream * gradient) <= bound + 1e-6 * upstream).all()
    assert 0 <= correct.item() <= len(hidden)


@pytest.mark.parametrize("decoder", [None, torch.float32])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_linear_ce_16_bit_error_is_rounding(
    dtype: torch.dtype, decoder: torch.dtype | None
) -> None:
    """In 16 bits, loss and gradients are within the error of their roundings."""
    assert_within_rounding(draw(20, 9, 90, dtype, decoder))


def test_linear_ce_loss_scale_adds_no_error() -> None:
    """An fp16 loss scale adds no rounding error."""
    assert_within_rounding(draw(8, 9, 90, torch.float16), upstream=2.0**10)


def test_linear_ce_keeps_small_probabilities_in_fp16() -> None:
    """Gradients of small probabilities keep their digits, though fp16 has steps of 7 % at e^-14."""
    head = draw(1, 1, 40, torch.float16, torch.float32)
    with torch.no_grad():
        head.hidden_MD.fill_(1.0)
        head.weight_VD.zero_()
        head.bias_V.fill_(-14.0)
        head.bias_V[0] = 0.0
        head.labels_M.zero_()
    fused(*head).loss.backward()
    actual, expected = gradients_of(head)[1][1:], exact(head).gradients[1][1:]
    # One rounding, or truncation by the interpreter.
    np.testing.assert_allclose(actual, expected, rtol=2 * UNIT[torch.float16])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_linear_ce_huge_logits_are_finite(dtype: torch.dtype) -> None:
    """Logits of 10,000 give finite losses and exact gradients."""
    head = draw(6, 1, 40, dtype)
    with torch.no_grad():
        head.hidden_MD.fill_(100.0)
        head.weight_VD.copy_(torch.linspace(-100, 100, 40).round().view(40, 1))
        head.bias_V.zero_()
        head.labels_M.fill_(0)
        head.labels_M[3:] = 39
    loss, correct = fused(*head)
    loss.backward()
    # Three times the distance between the largest logit and the smallest; both have 5 digits.
    assert loss.item() == pytest.approx(3 * 20_000, rel=2 * UNIT.get(dtype, 1e-6))
    assert correct.item() == 3
    gradients = gradients_of(head)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_array_equal(gradients[2], [-3] + [0] * 38 + [3])


def test_linear_ce_ties_choose_first() -> None:
    """Of equal logits the first counts as the largest."""
    head = draw(4, 2, 5000)
    with torch.no_grad():
        head.weight_VD.zero_()
        head.bias_V.zero_()
        head.bias_V[[7, 8, 4999]] = 1.0  # two of them in one block of the kernel
        head.labels_M.copy_(torch.tensor([7, 7, 8, 4999]))
    assert fused(*head).correct.item() == reference(*head).correct.item() == 2


@pytest.mark.parametrize("label", [-1, 201, 223, 10**6])
def test_linear_ce_invalid_label_is_not_finite(label: int) -> None:
    """A label outside of the vocabulary gives a loss of inf or NaN."""
    head = draw(3, 4, 201)
    head.labels_M[0] = label
    assert not fused(*head).loss.isfinite()


def test_linear_ce_independent_of_budget() -> None:
    """The memory budget changes results by rounding alone."""
    one, many = draw(140, 9, 65), draw(140, 9, 65)
    for head, budget in ((one, 2**20), (many, 1)):
        fused(*head, budget_bytes=budget).loss.backward()
    for gradient, other in zip(gradients_of(one), gradients_of(many), strict=True):
        # Sums of 140 numbers up to 3 in another order.
        np.testing.assert_allclose(gradient, other, rtol=0, atol=140 * 3 * 2.0**-23)
    np.testing.assert_array_equal(gradients_of(one)[0], gradients_of(many)[0])


def test_chunk_rows_fit_budget_evenly() -> None:
    """Chunks fit in the budget, are as few as possible, and of nearly equal size."""
    row_bytes = 2 * 30_528
    for tokens in (1, 63, 64, 65, 4_900, 9_830, 100_000):
        for budget in (2**23, 2**28, 2**31):
            rows = chunk_rows(tokens, row_bytes, budget)
            chunks = -(-tokens // rows)
            assert rows % 64 == 0
            assert rows * row_bytes <= budget
            assert chunks * rows - tokens < 64 * chunks  # no chunk is much smaller
            # One chunk less would not suffice.
            assert (chunks - 1) * (budget // row_bytes // 64 * 64) < tokens
    assert chunk_rows(1000, row_bytes, 1) == 64
    assert chunk_rows(0, row_bytes, 2**28) == 64


class _Allocations(TorchDispatchMode):
    """Records the size of the largest new tensor that is not a view of an input."""

    def __init__(self, known: Head) -> None:
        super().__init__()
        self.known = {x.untyped_storage().data_ptr() for x in known}
        self.largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            # The interpreter allocates byte tensors of its own.
            if not isinstance(x, torch.Tensor) or not x.is_floating_point():
                continue
            if x.untyped_storage().data_ptr() not in self.known:
                self.largest = max(self.largest, x.numel())
        return result


def test_linear_ce_evaluation_memory() -> None:
    """Without gradients no allocation exceeds the buffer of one chunk."""
    head = draw(70, 200, 96)
    decoder, chunk = head.weight_VD.numel(), 64 * 96
    with torch.no_grad(), _Allocations(head) as evaluation:
        loss = fused(*head, budget_bytes=1).loss
    assert not loss.requires_grad
    assert evaluation.largest == chunk
    with _Allocations(head) as training:
        trained = fused(*head, budget_bytes=1).loss
    assert trained.item() == loss.item()
    assert training.largest == decoder > chunk


def test_linear_ce_inside_compiled_caller() -> None:
    """A compiled caller gets the same gradients."""
    plain, compiled = draw(5, 7, 40), draw(5, 7, 40)

    def doubled(*head: torch.Tensor) -> torch.Tensor:
        return fused(*head).loss * 2

    doubled(*plain).backward()
    torch.compile(doubled, backend="eager")(*compiled).backward()
    for gradient, other in zip(gradients_of(plain), gradients_of(compiled), strict=True):
        np.testing.assert_array_equal(gradient, other)
