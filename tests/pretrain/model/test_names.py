"""Models are called by their name on the hub where it is known, and by their folder elsewhere."""

import json
from pathlib import Path

import pytest

from pretrain.model.names import known_hub_name, model_name

HUB = Path("/cache/hub/models--google-bert--bert-base-uncased/snapshots/86b5e0934494bd15")


@pytest.mark.parametrize(
    ("folder", "hub", "name"),
    [
        (HUB, "google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        (Path("/cache/models--gpt2/snapshots/1a"), "gpt2", "gpt2"),
        (Path("/data/models--mine"), "", "models--mine"),
        (Path("runs/teacher"), "", "teacher"),
        (Path("."), "", Path.cwd().name),
    ],
)
def test_names_follow_from_path(folder: Path, hub: str, name: str) -> None:
    """The cache of the hub has the name in its folders."""
    assert known_hub_name(folder) == hub
    assert model_name(folder) == name


def test_pushed_export_has_hub_name(tmp_path: Path) -> None:
    """An export that was pushed states where; anything else there is no name."""
    for content, expected in (
        ({"repository": "org/small"}, "org/small"),
        ({"repository": None}, ""),
        ([], ""),
    ):
        (tmp_path / "stillhouse.json").write_text(json.dumps(content), encoding="utf-8")
        assert known_hub_name(tmp_path) == expected
