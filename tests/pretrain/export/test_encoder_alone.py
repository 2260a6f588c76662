"""A student whose MLM head nothing trained is published as an encoder alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_prep.errors import UserError
from pretrain.export.huggingface import publish
from pretrain.export.parity import check_parity
from pretrain.model import Bert, BertShape
from pretrain.model.loading import WEIGHTS, locate
from tests.run_folders import make_run

FORMATS = ({}, {"pooler": True}, {"token_types": False}, {"norm": "pre"})


@pytest.mark.parametrize("changes", FORMATS, ids=str)
def test_untrained_head_is_not_published(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape, changes: dict[str, bool]
) -> None:
    """The export has the encoder, with its hidden states, and no head; its card says what it is."""
    from transformers import AutoConfig, AutoModel

    run, export = tmp_path / "run", tmp_path / "export"
    shape = replace(tiny_shape, **changes)  # type: ignore[arg-type]
    model = make_run(run, tiny_tokenizer, "student", shape, has_mlm_head=False)
    publish(run, export, language="en")
    assert AutoConfig.from_pretrained(export).architectures[0].endswith("Model")
    _, loading = AutoModel.from_pretrained(export, output_loading_info=True)
    assert not loading["unexpected_keys"]
    stored = {name: tensor.numel() for name, tensor in load_file(export / WEIGHTS).items()}
    assert not [name for name in stored if "predictions" in name or "vocab_" in name]
    card = (export / "README.md").read_text(encoding="utf-8")
    assert "feature-extraction" in card and "fill-mask" not in card and "MaskedLM" not in card
    # It can teach, but only what its layers hold; so can its run.
    assert not locate(export).has_mlm_head
    assert not locate(run).has_mlm_head
    assert model.count_parameters(has_heads=False) == sum(stored.values())


def test_trained_pooler_of_encoder_is_kept(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape
) -> None:
    """Without a trained MLM head the NSP head goes, too; the pooler that it trained stays."""
    run, export = tmp_path / "run", tmp_path / "export"
    model = make_run(run, tiny_tokenizer, "teacher", tiny_shape, has_mlm_head=False)
    publish(run, export, language="en")
    stored = load_file(export / WEIGHTS)
    assert not [name for name in stored if name.startswith("cls.")]
    name = "bert.pooler.dense.weight"
    assert torch.equal(stored[name], model.state_dict()[name])


def test_card_of_encoder_has_layer_losses(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape
) -> None:
    """The card states the held-out losses of layers, and no loss of masked tokens."""
    scores = {"validation/loss_hidden_mse": 0.25, "validation/step": 5.0}
    run, export = tmp_path / "run", tmp_path / "export"
    options = {"has_mlm_head": False, "validation": scores}
    make_run(run, tiny_tokenizer, "student", tiny_shape, **options)
    publish(run, export, language="en")
    card = (export / "README.md").read_text(encoding="utf-8")
    assert "| hidden mse loss | 0.2500 |" in card
    assert "masked token" not in card


def test_parity_of_encoder_compares_states(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape
) -> None:
    """An export of an encoder with a changed weight is refused."""
    run, export = tmp_path / "run", tmp_path / "export"
    model = make_run(run, tiny_tokenizer, "student", tiny_shape, has_mlm_head=False)
    publish(run, export, language="en")
    check_parity(export, model, has_heads=False)
    changed = Bert(model.shape)
    changed.load_state_dict(model.state_dict())
    with torch.no_grad():
        changed.bert.encoder.layer[0].output.dense.bias[0] += 0.1
    with pytest.raises(UserError, match="other hidden outputs"):
        check_parity(export, changed, has_heads=False)
