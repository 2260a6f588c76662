"""An export loads in plain transformers with the same logits, and is never half made."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from data_prep.errors import UserError
from data_prep.manifest import write_manifest
from data_prep.tokenizers.folder import load_tokenizer
from pretrain.data.batch import Batch
from pretrain.export import huggingface
from pretrain.export.huggingface import check_export, publish
from pretrain.export.parity import check_parity
from pretrain.export.target import FACTS
from pretrain.model import BertShape
from pretrain.model.hf_conversion import to_hf_config
from pretrain.model.loading import WEIGHTS, load_trained
from tests.run_folders import facts_of, make_run


def one_sample(input_ids: torch.Tensor) -> Batch:
    """Return a batch of one row with one sample whose tokens are all masked."""
    ids = input_ids[0]
    length = len(ids)
    return Batch(
        input_ids=ids,
        token_types=torch.zeros_like(ids),
        positions=torch.arange(length),
        sample_ids=torch.ones_like(ids, dtype=torch.int32),
        cu_seqlens=torch.tensor([0, length], dtype=torch.int32),
        masked_positions=torch.arange(length),
        mlm_labels=ids,
        cls_positions=torch.tensor([0]),
        nsp_labels=torch.tensor([0]),
        row_tokens=length,
        counts={"masked": length, "samples": 1, "tokens": length},
    )


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_export_loads_in_transformers(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape, kind: str
) -> None:
    """An export loads in plain transformers with the same logits."""
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

    run, export = tmp_path / "run", tmp_path / "export"
    model = make_run(run, tiny_tokenizer, kind, tiny_shape)
    assert publish(run, export, "apache-2.0", "en")
    tokenizer = AutoTokenizer.from_pretrained(export)
    plain, loading = AutoModelForMaskedLM.from_pretrained(export, output_loading_info=True)
    assert not loading["missing_keys"]
    inputs = tokenizer("bake the old mill", return_tensors="pt")
    assert tokenizer.unk_token_id not in inputs.input_ids[0, 1:2]
    with torch.no_grad():
        theirs = plain.eval()(**inputs).logits[0]
        ours = model.eval()(one_sample(inputs.input_ids)).mlm_logits_MV
    assert torch.allclose(theirs, ours, atol=1e-4)
    assert AutoModel.from_pretrained(export).config.num_hidden_layers == 2
    assert {path.suffix for path in export.iterdir()} <= {".safetensors", ".json", ".txt", ".md"}
    # Tied weights are stored once.
    assert not [name for name in load_file(export / WEIGHTS) if "decoder" in name]


def test_student_without_segments_is_distilbert(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape
) -> None:
    """A student without token types is a plain DistilBERT."""
    from transformers import AutoModelForMaskedLM, DistilBertForMaskedLM

    run, export = tmp_path / "run", tmp_path / "export"
    shape = dataclasses.replace(tiny_shape, token_types=False)
    model = make_run(run, tiny_tokenizer, "student", shape)
    assert publish(run, export, "apache-2.0", "en")
    plain, loading = AutoModelForMaskedLM.from_pretrained(export, output_loading_info=True)
    assert isinstance(plain, DistilBertForMaskedLM)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    ids = torch.randint(0, shape.vocab_size, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs, ours = plain.eval()(ids).logits[0], model.eval()(one_sample(ids)).mlm_logits_MV
    assert torch.allclose(theirs, ours, atol=1e-4)
    # Read again, as a teacher or to be compared, it is the same model.
    again = load_trained(export).model
    assert again.shape == model.shape
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_projections_are_not_published(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape
) -> None:
    """Projections to the width of a teacher are no part of the export."""
    run, export = tmp_path / "run", tmp_path / "export"
    make_run(run, tiny_tokenizer, "student", tiny_shape)
    checkpoint = run / "checkpoints" / "step_00000005"
    weights = load_file(checkpoint / WEIGHTS)
    mapped = {**weights, "projections.layer1_to_2.weight": torch.ones(64, 32)}
    save_file(mapped, checkpoint / WEIGHTS)
    facts = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    facts = {key: value for key, value in facts.items() if key != "files"}
    write_manifest(checkpoint, facts, [WEIGHTS])
    assert publish(run, export, "apache-2.0", "en")
    assert load_file(export / WEIGHTS).keys() == weights.keys()


def test_wrong_weight_is_noticed(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape
) -> None:
    """A weight that differs from the run's is noticed by the logits."""
    run, export = tmp_path / "run", tmp_path / "export"
    model = make_run(run, tiny_tokenizer, "teacher", tiny_shape)
    publish(run, export, "apache-2.0", "en")
    check_parity(export, model)
    for name in (
        "bert.encoder.layer.1.output.LayerNorm.weight",
        "cls.seq_relationship.weight",
        "bert.pooler.dense.bias",
    ):
        weights = load_file(export / WEIGHTS)
        save_file({**weights, name: weights[name] + 0.1}, export / WEIGHTS, {"format": "pt"})
        with pytest.raises(UserError, match=r"Plain transformers computes other .* outputs"):
            check_parity(export, model)
        save_file(weights, export / WEIGHTS, {"format": "pt"})


def test_misread_shape_is_not_published(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shape that transformers reads differently is not published."""
    make_run(tmp_path / "run", tiny_tokenizer, "teacher", tiny_shape)
    wrong = {"num_attention_heads": 2}  # the same parameters, other logits
    monkeypatch.setattr(huggingface, "to_hf_config", lambda *of: to_hf_config(*of) | wrong)
    with pytest.raises(UserError, match="so it was not published"):
        publish(tmp_path / "run", tmp_path / "export", "apache-2.0", "en")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_pickle_is_refused(tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape) -> None:
    """A pickle in the export is refused."""
    make_run(tmp_path / "run", tiny_tokenizer, "teacher", tiny_shape)
    publish(tmp_path / "run", tmp_path / "export", "apache-2.0", "en")
    (tmp_path / "export" / "training_args.bin").touch()
    with pytest.raises(UserError, match=r"training_args\.bin, which is not safe"):
        check_export(tmp_path / "export", load_trained(tmp_path / "run"), "export")


def test_newer_checkpoint_replaces_export(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape
) -> None:
    """Publishing again does nothing until there is a newer checkpoint."""
    run, export = tmp_path / "run", tmp_path / "export"
    model = make_run(run, tiny_tokenizer, "teacher", tiny_shape)
    assert publish(run, export, "apache-2.0", "en")
    assert not publish(run, export, "apache-2.0", "en")
    newer = run / "checkpoints" / "step_00000009"
    newer.mkdir()
    save_file(model.state_dict(), newer / WEIGHTS)
    facts = facts_of(model, "teacher", load_tokenizer(tiny_tokenizer).fingerprint)
    write_manifest(newer, {**facts.to_dict(), "step": 9}, [WEIGHTS])
    assert publish(run, export, "apache-2.0", "en")
    assert json.loads((export / FACTS).read_text(encoding="utf-8"))["step"] == 9


def test_foreign_folder_is_not_overwritten(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape
) -> None:
    """A folder that is no export of this project is not overwritten."""
    make_run(tmp_path / "run", tiny_tokenizer, "teacher", tiny_shape)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="is not an export of ours"):
        publish(tmp_path / "run", tmp_path / "export", "apache-2.0", "en")
    assert (tmp_path / "export" / "thesis.txt").read_text() == "years of work"
    assert not (tmp_path / "export.partial").exists()


def test_card_states_facts(tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape) -> None:
    """The card states the facts of the run."""
    make_run(tmp_path / "run", tiny_tokenizer, "student", tiny_shape)
    publish(tmp_path / "run", tmp_path / "my-bert", "cc-by-sa-3.0", "en")
    card = (tmp_path / "my-bert" / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "cc-by-sa-3.0"
    assert header["pipeline_tag"] == "fill-mask"
    assert "# my-bert" in card
    assert "started from layers 0, 2 of its teacher" in card
    assert "| MLM loss | 2.5000 | 1.5000 |" in card
    assert "60 documents, 4,242 tokens" in card
    assert "| hardware | 2 × CPU (test) |" in card
    assert "train.batch_rows: 4" in card
    assert "$" not in card


def test_export_loads_as_teacher(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape
) -> None:
    """An export loads as a teacher, with the same weights."""
    model = make_run(tmp_path / "run", tiny_tokenizer, "teacher", tiny_shape)
    publish(tmp_path / "run", tmp_path / "export", "apache-2.0", "en")
    loaded = load_trained(tmp_path / "export")
    assert loaded.model.shape == model.shape
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_misfit_weights_are_refused(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape
) -> None:
    """Weights that do not fit their shape are refused."""
    make_run(tmp_path / "run", tiny_tokenizer, "teacher", tiny_shape)
    publish(tmp_path / "run", tmp_path / "export", "apache-2.0", "en")
    weights = load_file(tmp_path / "export" / WEIGHTS)
    weights.pop("bert.pooler.dense.bias")
    save_file(weights, tmp_path / "export" / WEIGHTS)
    with pytest.raises(UserError, match=r"1 tensors are missing .* 'bert\.pooler\.dense\.bias'"):
        load_trained(tmp_path / "export")
