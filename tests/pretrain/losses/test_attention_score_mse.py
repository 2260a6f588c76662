"""TinyBERT's score loss: its normalisation by hand, and the memory of a row."""

import pytest
import torch

from pretrain.losses import attention_score_mse
from pretrain.losses.attention_score_mse import score_mse_sum
from pretrain.losses.head_layout import QueryKey
from tests.pretrain.losses.attention_reference import DEVICE, ids_of, make_case


def test_normalisation_by_hand() -> None:
    """Scores of the student are 2·3/√1, of the teacher 4·(1·1)/√4."""
    ids_N = ids_of(8, [[2, 3]])
    query, key = (torch.full((8, 1), x, device=DEVICE) for x in (2.0, 3.0))
    ones = torch.ones(8, 4, device=DEVICE)
    student, teacher = QueryKey(query, key), QueryKey(ones, ones)
    wanted = (2 + 3) * (6.0 - 2.0) ** 2
    assert score_mse_sum(student, teacher, 1, ids_N, 8).item() == wanted
    with torch.no_grad():
        key[2:] = 1.0  # the second sample's scores are now equal
    assert score_mse_sum(student, teacher, 1, ids_N, 8).item() == 2 * (6.0 - 2.0) ** 2


def test_invariant_to_common_rotation() -> None:
    """Rotating queries and keys together changes no score."""
    case = make_case("scores", heads=1, widths=(2, 2))
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], device=DEVICE)
    case = case._replace(student=[(x @ turn).requires_grad_() for x in case.teacher])
    size = sum(x.square().sum().item() for x in case.teacher)
    assert case.ours().item() == pytest.approx(0, abs=1e-5 * size)


def test_rows_at_a_time_within_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of rows computed at a time follows the budget, and changes rounding alone."""
    seen = []
    whole = attention_score_mse._sum_over_rows

    def watched(*arguments: torch.Tensor) -> torch.Tensor:
        seen.append(len(arguments[2]))
        return whole(*arguments)

    monkeypatch.setattr(attention_score_mse, "_sum_over_rows", watched)
    case = make_case("scores", (13, [[13]] * 5))
    row = attention_score_mse._row_bytes(case.heads, 13, 5)
    values = [case.ours(budget_bytes=budget).item() for budget in (1, 2 * row, 100 * row)]
    assert seen == [1] * 5 + [1, 2, 2] + [5]
    assert values == pytest.approx([values[0]] * 3, rel=1e-6)
