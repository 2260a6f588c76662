"""Checkpoints of others: what plain transformers computes from a folder is computed here."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from data_prep.errors import UserError
from pretrain.model.captured_states import Capture
from pretrain.model.loading import WEIGHTS, load_located, load_trained, locate
from tests.foreign_models import (
    BIAS,
    DECODER,
    VOCABULARY,
    WORDS,
    Edit,
    batch_of,
    edit_config,
    edit_weights,
    inputs_of,
    save,
)


def assert_same_logits(folder: Path, with_types: bool) -> None:
    """Compare the MLM logits of a folder with those of plain transformers."""
    model = load_trained(folder).model.eval()
    batch = batch_of()
    with torch.no_grad():
        plain = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
        expected = plain(**inputs_of(batch, with_types)).logits.flatten(0, 1)
        ours = model(batch).mlm_logits_MV
    # fp32 sums of 48 products in another order differ by some 1e-6 at logits of about 3.
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def assert_same_hidden(folder: Path, with_types: bool) -> None:
    """Compare the hidden states of all layers with those of plain transformers."""
    model = load_located(locate(folder)).model.eval()
    batch = batch_of()
    layers = frozenset(range(model.shape.layers + 1))
    with torch.no_grad():
        plain = transformers.AutoModel.from_pretrained(folder).eval()
        expected = plain(**inputs_of(batch, with_types), output_hidden_states=True).hidden_states
        found = model.states(batch, Capture(hidden=layers)).hidden
    for number in layers:
        torch.testing.assert_close(
            found[number], expected[number].flatten(0, 1), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    ("name", "with_types"),
    [
        ("BertForMaskedLM", True),
        ("BertForPreTraining", True),
        ("MegatronBertForMaskedLM", True),
        ("DistilBertForMaskedLM", False),
        ("RobertaForMaskedLM", False),
        ("XLMRobertaForMaskedLM", False),
        ("CamembertForMaskedLM", False),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_every_family(tmp_path: Path, name: str, with_types: bool, tied: bool) -> None:
    """Logits are those of plain transformers, also of a decoder that is not tied."""
    types = {} if with_types or name.startswith("Distil") else {"type_vocab_size": 1}
    save(tmp_path, name, tie_word_embeddings=tied, **types)
    assert load_trained(tmp_path).model.shape.tied_decoder == tied
    assert_same_logits(tmp_path, with_types)


@pytest.mark.parametrize(
    ("name", "unread"),
    [
        ("BertModel", False),
        ("DistilBertModel", False),
        ("RobertaModel", False),
        ("ElectraModel", False),
        ("BertForSequenceClassification", True),
        ("BertForTokenClassification", True),
        ("BertForQuestionAnswering", True),
        ("DistilBertForSequenceClassification", True),
        ("RobertaForSequenceClassification", True),
        ("ElectraForPreTraining", True),
        ("ElectraForSequenceClassification", True),
    ],
)
def test_encoders_without_mlm_head(tmp_path: Path, name: str, unread: bool) -> None:
    """The encoder of a model without an MLM head is read, and its other heads are named."""
    sizes = {"embedding_size": 32} if name.startswith("Electra") else {}
    save(tmp_path, name, **sizes)
    located = locate(tmp_path)
    assert not located.has_mlm_head and bool(located.unread) == unread
    assert_same_hidden(tmp_path, with_types=not name.startswith("Distil"))
    with pytest.raises(UserError, match="has no MLM head: name a model that has one"):
        load_trained(tmp_path)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _without(weights: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights.items() if part not in name}


_STORED: dict[str, tuple[Edit, bool]] = {  # what a file stores, and what its config states
    "decoder-twice": (lambda w: w | {DECODER: w[WORDS].clone()}, True),
    "own-decoder": (lambda w: w | {DECODER: _random(VOCABULARY, 32)}, True),
    "two-biases": (lambda w: w | {BIAS: _random(VOCABULARY)}, True),
    "own-decoder-and-bias": (
        lambda w: w | {DECODER: _random(VOCABULARY, 32), BIAS: _random(VOCABULARY)}, True
    ),
    "bias-of-decoder-alone": (
        lambda w: _without(w, "predictions.bias") | {BIAS: _random(VOCABULARY)}, True
    ),
    "decoder-alone": (
        lambda w: _without(w, "word_embeddings") | {DECODER: _random(VOCABULARY, 32)}, True
    ),
    "untied-and-equal": (
        lambda w: w | {DECODER: w[WORDS].clone(), BIAS: _random(VOCABULARY)}, False
    ),
    "untied-and-two-biases": (
        lambda w: w | {DECODER: _random(VOCABULARY, 32), BIAS: _random(VOCABULARY)}, False
    ),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "tied"), _STORED.values(), ids=list(_STORED))
def test_stored_ties_decide(tmp_path: Path, edit: Edit, tied: bool) -> None:
    """What a file stores of decoder and biases counts as in transformers, not what is stated."""
    save(tmp_path, "BertForMaskedLM")
    edit_weights(tmp_path, edit)
    edit_config(tmp_path, tie_word_embeddings=tied)
    assert_same_logits(tmp_path, with_types=True)


def test_untied_decoder_of_transformers_4(tmp_path: Path) -> None:
    """transformers 4 saved the bias of a decoder that is not tied under one of its two names."""
    save(tmp_path, "BertForMaskedLM", tie_word_embeddings=False)
    edit_weights(tmp_path, lambda w: _without(w, "decoder.bias"))
    bias = load_file(tmp_path / WEIGHTS)["cls.predictions.bias"]
    assert bias.any() and torch.equal(load_trained(tmp_path).model.cls.predictions.bias, bias)


def test_missing_decoder_means_no_head(tmp_path: Path) -> None:
    """A decoder that is not tied and not stored is random in transformers: here there is none."""
    save(tmp_path, "BertForMaskedLM")
    edit_config(tmp_path, tie_word_embeddings=False)
    assert not locate(tmp_path).has_mlm_head


def test_half_precision_is_widened(tmp_path: Path) -> None:
    """Weights in bf16 are read in fp32."""
    save(tmp_path, "BertForMaskedLM")
    edit_weights(tmp_path, lambda w: {name: t.bfloat16() for name, t in w.items()})
    model = load_trained(tmp_path).model
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_quantised_weights_refused(tmp_path: Path) -> None:
    """Weights of whole numbers are refused by name."""
    save(tmp_path, "BertForMaskedLM")
    name = "bert.encoder.layer.0.output.dense.weight"
    edit_weights(tmp_path, lambda w: w | {name: w[name].to(torch.int8)})
    with pytest.raises(UserError, match=rf"are quantised \({name} is of type I8\)"):
        load_trained(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": None, "architectures": None},
        {"model_type": None},
        {"hidden_act": "gelu_python"},
        {"is_decoder": False, "position_embedding_type": "absolute"},
    ],
)
def test_old_configs_are_read(tmp_path: Path, config: dict[str, Any]) -> None:
    """The first BERTs have no model_type, another name of GELU, and further keys."""
    save(tmp_path, "BertForPreTraining")
    expected = load_trained(tmp_path).model.state_dict()
    edit_config(tmp_path, **config)
    (tmp_path / "config.json").rename(tmp_path / "bert_config.json")
    found = load_trained(tmp_path).model
    assert found.shape.norm == "post"
    assert all(torch.equal(found.state_dict()[name], t) for name, t in expected.items())


def test_family_without_model_type(tmp_path: Path) -> None:
    """A config without model_type names its class."""
    save(tmp_path, "RobertaForMaskedLM", type_vocab_size=1)
    before = load_trained(tmp_path).model.shape
    edit_config(tmp_path, model_type=None)
    assert load_trained(tmp_path).model.shape == before
    assert before.positions == 40 - 2 and before.pad_id == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"is_decoder": True}, "has is_decoder true: a decoder sees only"),
        ({"add_cross_attention": True}, "has add_cross_attention true"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"num_hidden_layers": 10**9}, r"of 3 layers, but states 1000000000"),
        ({"num_hidden_layers": 10**30}, "num_hidden_layers 1000000000000000.* whole number"),
        ({"num_hidden_layers": "3"}, "has num_hidden_layers '3'; it must be a whole number"),
        ({"num_hidden_layers": 2}, r"of 3 layers, but states 2"),
        ({"hidden_size": 2**30}, r"word_embeddings.weight is \[120, 32\], but it should be"),
        ({"num_attention_heads": 5}, "has hidden_size 32, not divisible by its 5"),
        ({"max_position_embeddings": 64}, r"is \[40, 32\], but it should be \[64, 32\]"),
        ({"layer_norm_eps": "small"}, "has layer_norm_eps 'small'; it must be a number"),
        ({"auto_map": {"AutoModel": "modeling.Net"}}, "config.json has auto_map.* never run"),
    ],
)  # fmt: skip
def test_unsuitable_configs_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    """What cannot be computed exactly is refused by key and value, before anything is allocated."""
    save(tmp_path, "BertForMaskedLM")
    edit_config(tmp_path, **config)
    with pytest.raises(UserError, match=message):
        locate(tmp_path)


@pytest.mark.parametrize("name", ["DistilBertForMaskedLM", "RobertaForMaskedLM"])
def test_other_activations_refused(tmp_path: Path, name: str) -> None:
    """An activation that is not GELU is refused, except in a BERT, which transformers computes."""
    act = {"activation" if name.startswith("Distil") else "hidden_act": "relu"}
    save(tmp_path, name, **act)
    with pytest.raises(UserError, match="has hidden_act 'relu'; only 'gelu' or 'gelu_python'"):
        locate(tmp_path)


def test_missing_folder_refused(tmp_path: Path) -> None:
    """A path that does not exist is refused with the remedy."""
    with pytest.raises(UserError, match="correct the path"):
        locate(tmp_path / "nothing")


def test_same_name_twice_refused(tmp_path: Path) -> None:
    """A file with the old and the new name of one tensor is refused."""
    save(tmp_path, "BertForMaskedLM")
    name = "bert.embeddings.LayerNorm.weight"
    edit_weights(tmp_path, lambda w: w | {name.replace("weight", "gamma"): w[name] + 1})
    with pytest.raises(UserError, match=f"hold {name} twice"):
        locate(tmp_path)


@pytest.mark.parametrize("rows", [1, 2, 16])
def test_any_number_of_token_types(tmp_path: Path, rows: int) -> None:
    """Token types beyond the second are never in a batch; a single one is that of all tokens."""
    save(tmp_path, "BertForMaskedLM", type_vocab_size=rows)
    assert_same_logits(tmp_path, with_types=rows > 1)


def test_model_with_many_layers_is_cheap(tmp_path: Path) -> None:
    """A folder is located without allocating the model that its config describes."""
    save(tmp_path, "BertForMaskedLM")
    edit_config(tmp_path, vocab_size=2**31 - 1, intermediate_size=2**31 - 1)
    with pytest.raises(UserError, match="do not fit"):  # 16 TiB would not fit into memory
        locate(tmp_path)


def test_copy_of_folder_has_same_hash(tmp_path: Path) -> None:
    """The hash is that of the weights, wherever they lie."""
    save(tmp_path / "one", "BertForMaskedLM")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert locate(tmp_path / "one").sha256 == locate(tmp_path / "two").sha256
