"""TinyBERT's score loss: its normalisation by hand, its tiles and operations."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.losses import attention_score_mse
from pretrain.losses.attention_score_mse import score_mse_sum
from pretrain.losses.attention_tiles import BUDGET_BYTES, tile_size
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


def test_tiles_change_rounding_alone() -> None:
    """Tiles of any size give the same value and gradients."""
    case = make_case("scores", (13, [[13], [4, 9], [1, 2]]))
    values = [case.ours(budget_bytes=budget).item() for budget in (1, 5000, 2**30)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-6)


class _Operations(TorchDispatchMode):
    """Counts operations that are no views."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def test_layer_starts_tens_of_operations() -> None:
    """A tile starts tens of operations, uncompiled, and the backward pass of a layer a few."""
    rows, tokens = 32, 128  # a tile; one of a GPU holds three times as many
    student, teacher = (
        QueryKey(*(torch.zeros(rows * tokens, 24, requires_grad=own) for _ in range(2)))
        for own in (True, False)
    )
    ids_N = torch.ones(rows * tokens, dtype=torch.int32)
    with _Operations() as forward:
        total = score_mse_sum(student, teacher, 12, ids_N, tokens)
    with _Operations() as backward:
        total.backward()
    assert tile_size(rows, 12, tokens, BUDGET_BYTES) == (rows, tokens)
    assert forward.count < 60 and backward.count <= 6


def test_compiled_scores_match_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tile function compiles to one graph and gives the same gradients."""
    case = make_case("scores").on_cpu()
    wanted = case.gradients()
    plain = attention_score_mse._compare_scores
    compiled = torch.compile(plain, backend="aot_eager", dynamic=False, fullgraph=True)
    monkeypatch.setattr(attention_score_mse, "_compare_scores", compiled)
    for got, expected in zip(case.gradients(), wanted, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
