"""Terms: each sum is divided by its own global count."""

import pytest
import torch

from pretrain.losses.term import Term, normalised_loss, normalised_values


def test_terms_divided_by_own_counts() -> None:
    """The loss and the metrics divide each sum by the count of its kind, and by 1 for none."""
    terms = [
        Term("loss/a", torch.tensor(6.0), "masked", 5.0),
        Term("accuracy/a", torch.tensor(2.0), "masked"),
        Term("loss/b", torch.tensor(8.0), "tokens", 0.5),
        Term("loss/c", torch.tensor(9.0), "samples", 1.0),
    ]
    counts = {"masked": 3, "tokens": 16, "samples": 0}
    assert normalised_loss(terms, counts).item() == pytest.approx(5 * 2 + 0.5 * 0.5 + 9)
    values = normalised_values(terms, counts)
    assert values.tolist() == pytest.approx([2, 2 / 3, 0.5, 9]) and values.dtype == torch.float64
