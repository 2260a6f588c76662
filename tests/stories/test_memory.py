"""The memory of engines of every ZeRO stage on two ranks, against the forecast."""

import json
from pathlib import Path

import pytest

from tests.stories.conftest import Command
from tests.stories.weigh_every_stage import VARIANTS

pytestmark = pytest.mark.story
WORKER = Path(__file__).with_name("weigh_every_stage.py")


def test_memory_matches_forecast(deepspeed: Command, teacher_recipe: Path, tmp_path: Path) -> None:
    """Engines of every ZeRO stage hold what the forecast states, within 10 %."""
    out = tmp_path / "weighed"
    out.mkdir()
    deepspeed(WORKER, teacher_recipe, out)
    weighed = [json.loads((out / f"rank_{rank}.json").read_text()) for rank in range(2)]
    for variant in VARIANTS:
        for rank in weighed:
            parts = rank[variant]["parts"]
            expected = sum(parts.values())
            # Alignment, the small embeddings that no stage partitions, and counters: a few percent.
            found = rank[variant]["bytes"]
            assert found == pytest.approx(expected, rel=0.1), (variant, found / expected, parts)
