"""The memory of engines of every ZeRO stage on two ranks, against the forecast."""

import json
from pathlib import Path

import pytest

from tests.stories.conftest import Command
from tests.stories.measure_engine_memory import VARIANTS

pytestmark = pytest.mark.story
WORKER = Path(__file__).with_name("measure_engine_memory.py")


def test_memory_matches_forecast(deepspeed: Command, teacher_recipe: Path, tmp_path: Path) -> None:
    """Engines of every ZeRO stage hold what the forecast states, within 10 %."""
    out = tmp_path / "measured"
    out.mkdir()
    deepspeed(WORKER, teacher_recipe, out)
    measured = [json.loads((out / f"rank_{rank}.json").read_text()) for rank in range(2)]
    for variant in VARIANTS:
        for rank in measured:
            parts = rank[variant]["parts"]
            expected = sum(parts.values())
            # Alignment, the small embeddings that no stage partitions, and counters: a few percent.
            found = rank[variant]["bytes"]
            assert found == pytest.approx(expected, rel=0.1), (variant, found / expected, parts)
