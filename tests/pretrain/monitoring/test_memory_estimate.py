"""The forecast of memory: what ZeRO partitions, what is printed, what is compared.

What real engines hold is measured in tests/stories/test_memory.py.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from pretrain.model import BertShape
from pretrain.monitoring.activation_memory import Activations
from pretrain.monitoring.memory_estimate import (
    MemoryForecast,
    Part,
    Zero,
    forecast_error_note,
    predict,
)

GIB = 2**30


def zero(stage: int, ranks: int = 1, **changes: Any) -> Zero:
    made = Zero(
        stage=stage,
        ranks=ranks,
        offload=False,
        bucket=0,
        buckets=2,
        accumulates=True,
        accumulates_fp32=True,
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("stage", "kept"),
    # Bytes a parameter on 4 ranks, in bf16 with fp32 sums: weights, gradients, the rest.
    [(1, (2, 6, 3)), (2, (2, 1, 3)), (3, (2.5, 1, 3))],
)
def test_zero_stage_decides_partitions(
    stage: int, kept: tuple[float, float, float], tiny_shape: BertShape
) -> None:
    """Each ZeRO stage divides what it partitions by the number of ranks; offload removes it."""
    act = Activations(shape=tiny_shape, precision="bf16", tokens=64, masked=8, row_tokens=64)
    sizes = dict(predict(4000, zero(stage, ranks=4), act))
    assert sizes["weights"] == kept[0] * 4000
    assert sizes["gradients"] == kept[1] * 4000
    assert sizes["master weights in fp32"] + sizes["optimizer states"] == kept[2] * 4000
    offloaded = dict(predict(4000, zero(stage, ranks=4, offload=True), act))
    assert not {"master weights in fp32", "optimizer states"} & set(offloaded)


def test_table_lists_parts_and_sum() -> None:
    """The forecast is printed a line a part, in a fitting unit, with the sum last."""
    lines = (
        MemoryForecast([Part("weights", GIB), Part("work space", 3 * GIB)], torch.device("cpu"))
        .table()
        .splitlines()
    )
    assert lines[1].split() == ["weights", "1.00", "GiB"]
    assert lines[-1].split() == ["together", "4.00", "GiB"]
    assert "MiB" in MemoryForecast([Part("weights", 2**20)], torch.device("cpu")).table()


def test_wrong_forecast_is_noted_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A forecast that differs from the peak by more than a fifth is noted, a single time."""
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 10 * GIB)
    for expected, note in ((9, ""), (7, "peak was 7.00 GiB"), (13, "peak was 13.00 GiB")):
        card = MemoryForecast([Part("weights", expected * GIB)], torch.device("cuda", 0))
        assert card.figures() == {"memory/predicted_gib": expected}
        card.compare_with_peak()
        card.compare_with_peak()
        assert capsys.readouterr().out.count("10.00 GiB were needed") == bool(note)
    assert forecast_error_note(12 * GIB, 10 * GIB) is None


def test_cpu_peak_is_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """The peak of a CPU process includes other things, so nothing is compared."""
    laptop = MemoryForecast([Part("weights", GIB)], torch.device("cpu"))
    laptop.compare_with_peak()
    assert laptop.figures() == {} and capsys.readouterr().out == ""
