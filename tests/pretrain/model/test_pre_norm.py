"""Pre-norm models: equal to transformers' MegatronBert, exported, and distilled."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import MegatronBertConfig, MegatronBertForPreTraining

from pretrain.data.batch import Batch
from pretrain.export.huggingface import publish
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.foreign.config import from_hf_config
from pretrain.model.hf_conversion import to_hf_config
from pretrain.model.loading import load_trained
from tests.run_folders import make_run
from tests.student_tasks import DISTILBERT, make_distillation, stage, terms_of
from tests.unpacked_rows import T, unpack

TIED = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}


@pytest.fixture
def pre_shape(tiny_shape: BertShape) -> BertShape:
    return dataclasses.replace(tiny_shape, norm="pre")


@pytest.fixture
def model(pre_shape: BertShape) -> Bert:
    model = Bert(pre_shape)
    initialise(model, seed=5)
    generator = torch.Generator().manual_seed(6)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def test_parameter_names_match_megatron_bert(pre_shape: BertShape) -> None:
    """Parameters have the names and shapes of transformers' MegatronBert."""
    config = MegatronBertConfig(**to_hf_config(pre_shape))
    theirs = {n: p.shape for n, p in MegatronBertForPreTraining(config).named_parameters()}
    ours = {name: p.shape for name, p in Bert(pre_shape).named_parameters()}
    assert ours == {name: shape for name, shape in theirs.items() if name not in TIED}


def test_pre_norm_matches_megatron_bert(model: Bert, packed: Batch) -> None:
    """Losses and gradients equal those of transformers' MegatronBert."""
    model = model.double()
    theirs = MegatronBertForPreTraining(MegatronBertConfig(**to_hf_config(model.shape)))
    theirs = theirs.double().eval()
    assert set(theirs.load_state_dict(model.state_dict(), strict=False).missing_keys) <= TIED
    alone, _ = unpack(packed)
    labels = torch.full((len(alone.input_ids),), -100)
    labels[alone.masked_positions] = alone.mlm_labels
    expected = theirs(
        input_ids=alone.input_ids.view(-1, T),
        token_type_ids=alone.token_types.view(-1, T),
        attention_mask=(alone.sample_ids > 0).long().view(-1, T),
        labels=labels.view(-1, T),
        next_sentence_label=alone.nsp_labels,
    )
    mlm, _, nsp, _ = model(packed, pretraining_terms)
    counts = packed.counts
    # Theirs is the mean over tokens plus the mean over samples. fp64 losses end in fp32 sums.
    loss = mlm.total / counts["masked"] + nsp.total / counts["samples"]
    torch.testing.assert_close(loss.double(), expected.loss.double(), rtol=1e-5, atol=1e-5)
    loss.backward()
    expected.loss.backward()
    reference = dict(theirs.named_parameters())
    for name, parameter in model.named_parameters():
        tolerance = 1e-5 * float(reference[name].grad.abs().max()) + 1e-7
        torch.testing.assert_close(
            parameter.grad, reference[name].grad, rtol=0, atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


def test_pre_norm_shape_round_trips(pre_shape: BertShape) -> None:
    """A pre-norm shape is the same after conversion to `config.json` and back."""
    for next_sentence in (True, False):
        shape = dataclasses.replace(pre_shape, next_sentence=next_sentence)
        assert from_hf_config(to_hf_config(shape), "config.json") == shape


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [("teacher", "MegatronBertForPreTraining"), ("student", "MegatronBertForMaskedLM")],
)
def test_pre_norm_export_is_megatron_bert(
    tmp_path: Path, tiny_tokenizer: Path, pre_shape: BertShape, kind: str, architecture: str
) -> None:
    """An exported pre-norm model loads as a plain MegatronBert with the same weights."""
    from transformers import AutoModel

    run, export = tmp_path / "run", tmp_path / "export"
    model = make_run(run, tiny_tokenizer, kind, pre_shape)
    assert publish(run, export, "apache-2.0", "en")  # `publish` compares the logits
    config = json.loads((export / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == [architecture]
    assert type(AutoModel.from_pretrained(export)).__name__ == "MegatronBertModel"
    loaded = load_trained(export).model
    assert loaded.shape == model.shape
    assert all(torch.equal(w, model.state_dict()[n]) for n, w in loaded.state_dict().items())


def test_pre_norm_student_of_pre_norm_teacher(model: Bert, packed: Batch) -> None:
    """A student of a pre-norm teacher is pre-norm and trains all its parameters."""
    student, task = make_distillation(model, stage(DISTILBERT), init=[1])
    assert student.shape.norm == "pre"
    final_norm = "bert.encoder.ln.weight"
    assert torch.equal(student.state_dict()[final_norm], model.state_dict()[final_norm])
    terms = terms_of(student, task, packed)
    torch.stack([term.total for term in terms if term.weight]).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in student.parameters())
