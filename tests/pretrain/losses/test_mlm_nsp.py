"""MLM and NSP losses against numpy in fp64: values by formula, gradients by differences."""

import numpy as np
import pytest
import torch

from pretrain.data.batch import IGNORE_INDEX
from pretrain.losses.mlm_nsp import cross_entropy, pretraining_terms
from tests.pretrain.losses import numpy_reference
from tests.pretrain.losses.numpy_reference import assert_matches, draw
from tests.pretrain.losses.outputs_of_logits import make_batch, make_outputs

M, V = 5, 7
LABELS = np.array([0, 6, 3, 3, 1])


def test_cross_entropy_matches_numpy() -> None:
    """Cross-entropy is a sum, and its gradient agrees with central differences."""
    labels = torch.tensor(LABELS)
    assert_matches(
        lambda x: cross_entropy(x, labels).loss,
        lambda x: numpy_reference.cross_entropy(x, LABELS),
        draw(M, V),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cross_entropy_low_precision_summed_in_fp32(dtype: torch.dtype) -> None:
    """Logits in 16 bits give an fp32 sum without further rounding."""
    logits = torch.tensor(draw(M, V)).to(dtype)
    loss = cross_entropy(logits, torch.tensor(LABELS)).loss
    assert loss.dtype == torch.float32
    expected = numpy_reference.cross_entropy(logits.double().numpy(), LABELS)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_extreme_logits_finite() -> None:
    """Logits of 3e4 give a finite loss and gradient."""
    logits = torch.tensor([[3e4, -3e4, 0.0]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([1])).loss
    loss.backward()
    assert torch.isfinite(loss) and logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_cross_entropy_without_tokens_is_zero() -> None:
    """No masked token gives a loss of 0 with a gradient."""
    logits = torch.zeros(0, V, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.int64)).loss
    loss.backward()
    assert loss.item() == 0


def test_cross_entropy_counts_correct_labels() -> None:
    """The number of labels with the largest logit is counted."""
    logits = torch.tensor([[0.0, 1.0], [2.0, 1.0], [0.0, 5.0]])
    assert cross_entropy(logits, torch.tensor([1, 1, 1])).correct.item() == 2.0


def test_cross_entropy_ignores_padding_labels() -> None:
    """Entries with the label IGNORE_INDEX have neither loss nor gradient."""
    logits = torch.tensor(draw(M + 3, V), dtype=torch.float32, requires_grad=True)
    labels = torch.tensor([*LABELS, *[IGNORE_INDEX] * 3])
    padded = cross_entropy(logits, labels)
    exact = cross_entropy(logits[:M], labels[:M])
    torch.testing.assert_close(tuple(padded), tuple(exact))
    (gradient,), (wanted,) = (torch.autograd.grad(x.loss, logits) for x in (padded, exact))
    torch.testing.assert_close(gradient, wanted)
    assert not gradient[M:].any()


def test_pretraining_terms_are_mlm_and_nsp() -> None:
    """BERT's terms are MLM and NSP losses with their accuracies; NSP only with its head."""
    logits = torch.tensor(draw(M, V), dtype=torch.float32)
    nsp = torch.tensor([[1.0, 0.0], [3.0, 0.0], [9.0, 0.0]])
    batch = make_batch(torch.tensor(LABELS))
    terms = pretraining_terms(make_outputs(logits, nsp), batch)
    assert [(t.tag, t.per, t.weight) for t in terms] == [
        ("loss/mlm", "masked", 1.0),
        ("accuracy/mlm", "masked", 0.0),
        ("loss/nsp", "samples", 1.0),
        ("accuracy/nsp", "samples", 0.0),
    ]
    correct = float((draw(M, V).argmax(axis=-1) == LABELS).sum())
    expected_nsp = np.log1p(np.exp(-1)) + np.log1p(np.exp(3))
    expected_mlm = numpy_reference.cross_entropy(draw(M, V), LABELS)
    expected = [expected_mlm, correct, expected_nsp, 1.0]
    assert [t.total.item() for t in terms] == pytest.approx(expected, rel=1e-5)
    without_head = pretraining_terms(make_outputs(logits), batch)
    assert [t.tag for t in without_head] == ["loss/mlm", "accuracy/mlm"]


def test_each_direction_has_own_mlm_terms() -> None:
    """A batch that shows samples reversed as well has a loss and an accuracy of each direction."""
    logits = draw(2 * M, V)
    outputs = make_outputs(torch.tensor(logits, dtype=torch.float32))
    terms = pretraining_terms(outputs, make_batch(torch.tensor(LABELS).repeat(2), directions=2))
    assert [t.tag for t in terms] == [
        "loss/mlm",
        "accuracy/mlm",
        "loss/mlm_reversed",
        "accuracy/mlm_reversed",
    ]
    halves = logits[:M], logits[M:]
    losses = [numpy_reference.cross_entropy(half, LABELS) for half in halves]
    correct = [float((half.argmax(axis=-1) == LABELS).sum()) for half in halves]
    expected = [losses[0], correct[0], losses[1], correct[1]]
    assert [t.total.item() for t in terms] == pytest.approx(expected, rel=1e-5)
