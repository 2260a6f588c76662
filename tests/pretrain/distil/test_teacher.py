"""The teacher: its outputs, the layers it computes, and checkpoints that are refused."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, BertModel

from data_prep.errors import UserError
from data_prep.tokenizers.fingerprints import file_fingerprint
from data_prep.tokenizers.folder import load_tokenizer, save_tokenizer
from data_prep.tokenizers.foreign.adoption import adopt_tokenizer
from pretrain.data.batch import Batch
from pretrain.data.dummy_batch import dummy_batch
from pretrain.distil.teacher import Teacher, locate_teachers
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.captured_states import Capture
from pretrain.model.hf_conversion import to_hf_config
from pretrain.model.loading import WEIGHTS, load_located, load_trained, locate

CPU = torch.device("cpu")
Save = Callable[..., Path]


@pytest.fixture
def folder_of(tmp_path: Path, tiny_shape: BertShape, tiny_tokenizer: Path) -> Save:
    """Return a function that saves a transformers model with the tokenizer of the corpus."""

    def save(kind: type[torch.nn.Module], **config: Any) -> Path:
        torch.manual_seed(4)
        model = kind(BertConfig(**{**to_hf_config(tiny_shape), **config}))
        folder = tmp_path / kind.__name__
        model.save_pretrained(folder)  # type: ignore[operator]
        for path in tiny_tokenizer.glob("*.json"):
            if path.name != "manifest.json":
                shutil.copyfile(path, folder / path.name)
        return folder

    return save


def large(shape: BertShape) -> Bert:
    """Return a teacher as deep as BERT-large, and a thirty-second as wide."""
    model = Bert(dataclasses.replace(shape, layers=24, heads=4))
    initialise(model, seed=2)
    return model


def test_teacher_is_frozen(tiny_model: Bert, packed: Batch) -> None:
    """A teacher is in evaluation mode and no parameter or output requires gradients."""
    teacher = Teacher(tiny_model.train(), CPU, "fp32")
    outputs = teacher(packed)
    assert not tiny_model.training and not outputs.hidden_ND.requires_grad
    assert not any(parameter.requires_grad for parameter in tiny_model.parameters())


def test_truncated_teacher_matches_whole(tiny_shape: BertShape, packed: Batch) -> None:
    """A teacher without its upper layers gives the same states below them."""
    capture = Capture(hidden=frozenset({0, 20}), attention=frozenset({21}))
    whole, cut = large(tiny_shape), large(tiny_shape)
    expected = Teacher(whole, CPU, "fp32")(packed, capture).states
    teacher = Teacher(cut, CPU, "fp32", layers=capture.last)
    found = teacher.states(packed, capture)
    assert len(cut.bert.encoder.layer) == 21
    per_layer = sum(p.numel() for p in whole.bert.encoder.layer[0].parameters())
    assert teacher.peak_parameters == whole.count_parameters() - 3 * per_layer
    assert found.hidden.keys() == {0, 20} and found.attention.keys() == {21}
    for layer, hidden_ND in expected.hidden.items():
        assert torch.equal(found.hidden[layer], hidden_ND)
    assert all(map(torch.equal, found.attention[21], expected.attention[21]))


def test_teacher_timer_accumulates_until_read(tiny_model: Bert, packed: Batch) -> None:
    """The time of forward passes accumulates until it is read."""
    teacher = Teacher(tiny_model, CPU, "fp32")
    assert teacher.timer.read_ms() == 0
    teacher(packed)
    once = teacher.timer.read_ms()
    for _ in range(20):
        teacher.states(packed, Capture(hidden=frozenset({2})))
    assert once > 0 and teacher.timer.read_ms() > 0
    assert teacher.timer.read_ms() == 0


CAPTURE = Capture(hidden=frozenset({2}))


def test_check_accepts_sound_teacher(tiny_model: Bert) -> None:
    """A teacher with finite, reproducible outputs passes the check."""
    batch = dummy_batch(tiny_model.shape.vocab_size, rows=2, row_tokens=16, masked_tokens=8)
    assert len(batch.masked_positions) == 8
    for needs_logits in (True, False):
        Teacher(tiny_model, CPU, "fp32").check(batch, CAPTURE, needs_logits)


def test_check_names_nan_weight(tiny_model: Bert) -> None:
    """A weight that is NaN is refused by name, even where no batch reads it."""
    # Of a token that the batch does not contain.
    tiny_model.bert.embeddings.word_embeddings.weight.data[7, 3] = float("nan")
    teacher = Teacher(tiny_model, CPU, "fp32", name="The teacher x")
    batch = dummy_batch(tiny_model.shape.vocab_size, 2, 16)
    with pytest.raises(UserError, match=r"The teacher x has NaN .*word_embeddings\.weight"):
        teacher.check(batch, CAPTURE, needs_logits=False)


def test_check_refuses_infinite_outputs(tiny_model: Bert) -> None:
    """Outputs that overflow are refused."""
    tiny_model.bert.encoder.layer[0].output.LayerNorm.weight.data.fill_(3e38)
    teacher = Teacher(tiny_model, CPU, "fp32")
    with pytest.raises(UserError, match="gives NaN or infinity"):
        teacher.check(dummy_batch(tiny_model.shape.vocab_size, 2, 16), CAPTURE, needs_logits=False)


@pytest.mark.parametrize("needs_logits", [True, False])
def test_check_refuses_dropout(tiny_model: Bert, needs_logits: bool) -> None:
    """A teacher whose outputs differ between two forward passes is refused."""
    teacher = Teacher(tiny_model, CPU, "fp32")
    layer = tiny_model.bert.encoder.layer[1]
    layer.register_forward_hook(
        lambda module, inputs, output: (torch.nn.functional.dropout(output[0], 0.5), output[1])
    )
    with pytest.raises(UserError, match="gives different outputs for the same batch"):
        teacher.check(dummy_batch(tiny_model.shape.vocab_size, 2, 16), CAPTURE, needs_logits)


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertForPreTraining])
def test_transformers_bert_as_teacher(
    folder_of: Save, tiny_tokenizer: Path, kind: type[torch.nn.Module]
) -> None:
    """A BERT checkpoint of transformers with an MLM head gives its own logits."""
    folder = folder_of(kind)
    (located,) = locate_teachers([folder], load_tokenizer(tiny_tokenizer))
    assert located.has_mlm_head
    model = load_located(located).model.eval()
    batch = dummy_batch(model.shape.vocab_size, rows=2, row_tokens=16)
    rows = {
        "input_ids": batch.input_ids.view(2, 16),
        "token_type_ids": batch.token_types.view(2, 16),
    }
    with torch.no_grad():
        expected = kind.from_pretrained(folder).eval()(**rows)  # type: ignore[attr-defined]
        ours = model(batch).mlm_logits_MV
    logits = expected.logits if kind is BertForMaskedLM else expected.prediction_logits
    torch.testing.assert_close(ours, logits.flatten(0, 1), rtol=1e-4, atol=1e-5)


def test_legacy_layer_norm_names_load(folder_of: Save) -> None:
    """Checkpoints with `gamma` and `beta` instead of `weight` and `bias` load."""
    folder = folder_of(BertForPreTraining)
    expected = load_trained(folder).model.state_dict()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("Norm.bias", "Norm.beta"): t
        for name, t in load_file(folder / WEIGHTS).items()
    }
    assert any(name.endswith(".gamma") for name in old)
    old["bert.embeddings.position_ids"] = torch.arange(64)[None]
    save_file(old, folder / WEIGHTS, {"format": "pt"})
    found = load_trained(folder).model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_bert_without_heads_loads_layers(folder_of: Save, packed: Batch) -> None:
    """A checkpoint without heads loads its layers and states that it has no MLM head."""
    folder = folder_of(BertModel)
    located = locate(folder)
    assert not located.has_mlm_head
    model = load_located(located).model
    plain = BertModel.from_pretrained(folder).state_dict()
    for name, tensor in plain.items():
        if not name.startswith("pooler.") and "position_ids" not in name:
            assert torch.equal(model.state_dict()[f"bert.{name}"], tensor), name
    with pytest.raises(UserError, match="has no MLM head"):
        load_trained(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "tf_model.h5"])
def test_pickled_weights_refused(folder_of: Save, name: str) -> None:
    """Weights in a pickle are refused, not read."""
    folder = folder_of(BertForMaskedLM)
    (folder / WEIGHTS).rename(folder / name)
    with pytest.raises(UserError, match=f"has its weights in {name}, not in {WEIGHTS}"):
        locate(folder)


def test_other_tokenizer_refused_with_fingerprints(folder_of: Save, tiny_tokenizer: Path) -> None:
    """A teacher of another tokenizer is refused, and the message has both fingerprints."""
    corpus = load_tokenizer(tiny_tokenizer)
    other = dataclasses.replace(corpus, fingerprint="f" * 16, other_fingerprints=frozenset())
    with pytest.raises(UserError, match=f"{corpus.fingerprint}, but the corpus .* {'f' * 16}"):
        locate_teachers([folder_of(BertForMaskedLM)], other)


def test_overridden_tokenizer_is_that_of_its_corpus(
    folder_of: Save, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    """A tokenizer_config.json that overrides tokenizer.json did so when the corpus was made."""
    folder = folder_of(BertForMaskedLM)
    config = folder / "tokenizer_config.json"
    content = json.loads(config.read_text())
    content["do_lower_case"] = not content["do_lower_case"]
    config.write_text(json.dumps(content))
    adopted = adopt_tokenizer(folder)
    save_tokenizer(adopted.backend, tmp_path / "taken", "existing", names=adopted.names)
    taken = load_tokenizer(tmp_path / "taken")
    assert taken.fingerprint != load_tokenizer(tiny_tokenizer).fingerprint
    assert locate_teachers([folder], taken)
    # A folder of vocab.txt alone is the same tokenizer.
    (folder / "tokenizer.json").unlink()
    shutil.copyfile(tiny_tokenizer / "vocab.txt", folder / "vocab.txt")
    assert locate_teachers([folder], taken)


def test_earlier_fingerprint_is_accepted(folder_of: Save, tiny_tokenizer: Path) -> None:
    """A corpus of an earlier version has another fingerprint of the same tokenizer."""
    loaded = load_tokenizer(tiny_tokenizer)
    earlier = file_fingerprint(tiny_tokenizer / "tokenizer.json")
    assert earlier != loaded.fingerprint
    corpus = dataclasses.replace(loaded, fingerprint=earlier, other_fingerprints=frozenset())
    assert locate_teachers([folder_of(BertForMaskedLM)], corpus)


def test_different_vocabulary_sizes_refused(
    folder_of: Save, tiny_shape: BertShape, tiny_tokenizer: Path
) -> None:
    """Teachers whose vocabularies differ in size cannot be averaged."""
    first = folder_of(BertForMaskedLM)
    second = folder_of(BertForPreTraining, vocab_size=208)
    with pytest.raises(UserError, match=r"vocabulary of 208, but .* one of 201"):
        locate_teachers([first, second], load_tokenizer(tiny_tokenizer))
