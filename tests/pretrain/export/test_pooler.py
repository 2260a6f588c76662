"""A trained pooler goes with the export, also where no head reads it."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertModel

from pretrain.export.huggingface import publish
from pretrain.model import BertShape
from pretrain.model.hf_conversion import to_hf_config
from pretrain.model.loading import WEIGHTS, load_trained
from tests.run_folders import make_run

POOLER = ("bert.pooler.dense.weight", "bert.pooler.dense.bias")


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_two_loads_give_one_pooler(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape, norm: str
) -> None:
    """AutoModel finds the kept pooler of a student, and the export is read as the same model."""
    shape = dataclasses.replace(tiny_shape, next_sentence=False, pooler=True, norm=norm)
    model = make_run(tmp_path / "run", tiny_tokenizer, "student", shape)
    publish(tmp_path / "run", tmp_path / "export", "apache-2.0", "en")
    ids = torch.tensor([[2, 9, 30, 3]])
    with torch.no_grad():
        first, second = (
            AutoModel.from_pretrained(tmp_path / "export").eval()(ids).pooler_output for _ in "ab"
        )
    assert torch.equal(first, second)
    again = load_trained(tmp_path / "export").model
    assert again.shape == model.shape
    for name in POOLER:
        assert torch.equal(again.state_dict()[name], model.state_dict()[name])


def test_foreign_encoder_has_its_pooler(tmp_path: Path, tiny_shape: BertShape) -> None:
    """A BERT saved without heads is located with its pooler; half of one is none."""
    from pretrain.model.loading import locate

    BertModel(BertConfig(**to_hf_config(tiny_shape))).save_pretrained(tmp_path)
    assert locate(tmp_path).shape == dataclasses.replace(
        tiny_shape, next_sentence=False, pooler=True
    )
    weights = load_file(tmp_path / WEIGHTS)
    weights.pop("pooler.dense.bias")
    save_file(weights, tmp_path / WEIGHTS)
    assert not locate(tmp_path).shape.has_pooler


def test_shape_of_older_manifest_has_no_kept_pooler(tiny_shape: BertShape) -> None:
    """A manifest from before the field is read as it was meant."""
    older = json.loads(json.dumps(tiny_shape.to_dict()))
    del older["pooler"]
    assert BertShape(**older) == tiny_shape
    assert BertShape(**{**older, "next_sentence": False}).has_pooler is False
