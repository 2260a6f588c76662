"""Models by their names on the hub: located as a folder is, refused before weights are fetched."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data_prep.errors import UserError
from pretrain.model.loading import WEIGHTS, load_trained, locate
from tests.foreign_models import edit_config, save
from tests.hub_server import Hub, serve_hub

NAME = Path("org/model")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Return a hub with a BERT as org/model."""
    save(tmp_path / "served", "BertForPreTraining")
    monkeypatch.chdir(tmp_path)
    with serve_hub(monkeypatch, tmp_path / "cache") as served:
        served.repositories[str(NAME)] = tmp_path / "served"
        yield served


def test_model_of_the_hub_is_loaded(hub: Hub) -> None:
    """A name gives the model of its repository, and the hash of its weights."""
    expected = load_trained(hub.repositories[str(NAME)]).model.state_dict()
    found = load_trained(NAME).model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert locate(NAME).sha256 == locate(hub.repositories[str(NAME)]).sha256
    assert hub.sent.count(WEIGHTS) == 1


@pytest.mark.parametrize("change", [{"model_type": "t5"}, {"auto_map": {"AutoModel": "net.Net"}}])
def test_unsuitable_model_is_not_fetched(hub: Hub, change: dict[str, object]) -> None:
    """The weights of a model that cannot be used are never downloaded."""
    edit_config(hub.repositories[str(NAME)], **change)
    with pytest.raises(UserError, match=r"has model_type 't5'|has auto_map"):
        locate(NAME)
    assert WEIGHTS not in hub.sent


def test_model_without_safetensors_is_named(hub: Hub) -> None:
    """A repository of pickles alone is refused by name, and nothing of them is downloaded."""
    folder = hub.repositories[str(NAME)]
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"org/model has no model\.safetensors on the hub"):
        locate(NAME)
    assert "pytorch_model.bin" not in hub.sent
