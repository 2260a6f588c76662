"""Tiled KL divergence: size of tiles, extreme scores, and the compiled tile function."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch._dynamo import config as dynamo_config
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.losses import attention_tiles
from pretrain.losses.attention_tiles import (
    choose_compare,
    tile_size,
    tiled_kl_sum,
)
from pretrain.losses.head_layout import QueryKey
from tests.pretrain.losses.attention_reference import DEVICE, LONG, draw, ids_of, make_case


def test_tile_size_within_budget() -> None:
    """Tiles are within the budget and have at least one query."""
    for rows, heads, row_tokens in ((512, 12, 128), (128, 48, 512), (8, 64, 4096), (1, 1, 1)):
        for budget in (1, 2**20, 2**28, 2**33):
            tile_rows, queries = tile_size(rows, heads, row_tokens, budget)
            needed = tile_rows * queries * heads * row_tokens * 4 * 8
            assert 1 <= tile_rows <= rows and 1 <= queries <= min(row_tokens, 128)
            assert needed <= budget or (tile_rows, queries) == (1, 1)
            # Whole rows of queries come first: a tile of many rows is as high as it can be.
            assert tile_rows == 1 or queries == min(row_tokens, 128)
    assert tile_size(0, 12, 128, 2**28)[0] == 1


def test_tile_size_by_number_of_tensors() -> None:
    """The fewer tensors a tile needs, the larger it is."""
    for tensors in (3, 8):
        rows, queries = tile_size(512, 48, 128, 2**28, tensors)
        needed = queries * 48 * 128 * 4 * tensors
        assert queries == 128 and rows * needed <= 2**28 < (rows + 1) * needed


class Calls(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "made"), [("relations", 2), ("attention", 4)])
def test_tile_casts_each_input_once(kind: Any, made: int) -> None:
    """A tile casts each query or key once and copies no result."""
    case = make_case(kind, LONG, dtype=torch.bfloat16).on_cpu()
    with Calls() as calls:
        case.ours()
    # Each query or key is widened once. A GPU would spend as long on starting more as on the work.
    assert calls.counts["_to_copy"] == made
    assert calls.counts["copy_"] == 0


def test_fused_tiles_with_triton_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles are fused on a GPU with Triton, and nowhere else."""
    plain = attention_tiles._compare
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(attention_tiles, "has_triton", lambda: False)
    assert choose_compare(plain, gpu) == choose_compare(plain, cpu) == (plain, 8)
    monkeypatch.setattr(attention_tiles, "has_triton", lambda: True)
    assert choose_compare(plain, cpu) == (plain, 8)
    fused, tensors = choose_compare(plain, gpu)
    assert fused is not plain and tensors == 3
    assert dynamo_config.recompile_limit >= 64, "past it, a tile of another shape is an error"


@pytest.mark.parametrize("factor", [30.0, 300.0])
def test_extreme_scores_finite_and_exact(factor: float) -> None:
    """Probabilities underflow, their logarithms do not: exp(-Δ) would be infinite."""
    case = make_case("attention", widths=(6, 6))
    with torch.no_grad():
        case.student[0].mul_(factor)
        case.teacher[0].mul_(-factor)
    value, gradients = case.exact()
    assert value > factor
    assert case.ours().item() == pytest.approx(value, rel=1e-6)
    for got, wanted in zip(case.gradients(), gradients, strict=True):
        # A score of size `factor` errs by some factor · 2^-23, and its probability as much.
        assert (got - wanted).norm() <= factor * 2.0**-22 * wanted.norm()


def test_divergence_never_negative() -> None:
    """Nearly equal models have a positive divergence, without cancellation."""
    generator = torch.Generator().manual_seed(0)
    for exponent in range(-7, 1):
        case = make_case("relations", LONG, widths=(6, 6))
        noise = torch.randn(case.student[0].shape, generator=generator).to(DEVICE)
        case.teacher[0].copy_(case.student[0].detach() + 10.0**exponent * noise)
        assert case.ours().item() > 0


def test_shared_query_key_sums_gradients() -> None:
    """A tensor that is query and key has the sum of both gradients."""
    ids_N = ids_of(13, [[5, 4, 1]])
    teacher = QueryKey(*[draw(13, 8, seed=9)] * 2)
    shared = draw(13, 4, seed=1).requires_grad_()
    tiled_kl_sum(QueryKey(shared, shared), teacher, 2, ids_N, 13).backward()
    query, key = (shared.detach().clone().requires_grad_() for _ in range(2))
    tiled_kl_sum(QueryKey(query, key), teacher, 2, ids_N, 13).backward()
    assert shared.grad is not None and query.grad is not None and key.grad is not None
    torch.testing.assert_close(shared.grad, query.grad + key.grad)
    assert not torch.allclose(query.grad, key.grad)


def test_gradient_of_key_alone() -> None:
    """A key may require gradients without its query."""
    case = make_case("attention")
    wanted = case.gradients()[1]
    fixed = case._replace(student=[case.student[0].detach(), case.student[1]])
    fixed.ours().backward()
    assert torch.equal(case.student[1].grad, wanted)  # type: ignore[arg-type]


def test_no_grad_gives_same_value() -> None:
    """Without gradients the value is the same."""
    case = make_case("relations")
    with torch.no_grad():
        value = case.ours()
    assert not value.requires_grad
    assert value.item() == case.ours().item()


def test_compiled_tile_matches_eager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tile function compiles to one graph and gives the same gradients."""
    case = make_case("attention", LONG).on_cpu()
    wanted = case.gradients()
    compiled = torch.compile(
        attention_tiles._compare, backend="aot_eager", dynamic=False, fullgraph=True
    )
    monkeypatch.setattr(attention_tiles, "_compare", compiled)
    for got, expected in zip(case.gradients(), wanted, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
