"""Encoders to fine-tune: any family, safetensors alone, no code, their own tokenizer."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from data_prep.errors import UserError
from launch.downstream.models import load_model, open_source

HEAD = "AutoModelForSequenceClassification"
SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16}
SMALL |= {"intermediate_size": 16, "max_position_embeddings": 40, "pad_token_id": 0}


def save_family(folder: Path, tokenizer: Path, config: str, **more: Any) -> Path:
    """Save a small encoder of a family with random weights, and a tokenizer."""
    found = transformers.AutoTokenizer.from_pretrained(tokenizer)
    shape = getattr(transformers, config)(vocab_size=len(found), **{**SMALL, **more})
    transformers.AutoModel.from_config(shape).save_pretrained(folder)
    found.save_pretrained(folder)
    return folder


def change_json(path: Path, **more: Any) -> None:
    """Replace some entries of a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **more}), encoding="utf-8")


@pytest.mark.parametrize(
    ("config", "more", "limit"),
    [
        ("BertConfig", {}, 40),
        ("MegatronBertConfig", {}, 40),
        # Its positions begin behind the padding token.
        ("RobertaConfig", {"pad_token_id": 0, "type_vocab_size": 1}, 39),
        ("DistilBertConfig", {"dim": 16, "hidden_dim": 16, "n_layers": 1, "n_heads": 2}, 40),
        ("ElectraConfig", {"embedding_size": 16}, 40),
    ],
)
def test_families_are_read(
    tmp_path: Path, tiny_tokenizer: Path, config: str, more: dict[str, Any], limit: int
) -> None:
    """Encoders of several families take a text of the length that they report."""
    folder = save_family(tmp_path / "m", tiny_tokenizer, config, **more)
    source = open_source(str(folder), HEAD, 384)
    assert source.max_tokens == limit and f"reads {limit} tokens" in source.notes[0]
    model = load_model(folder, HEAD, {"num_labels": 3}, 0).eval()
    inputs = {"input_ids": torch.full((1, limit), 7), "attention_mask": torch.ones(1, limit)}
    assert model(**inputs).logits.shape == (1, 3)


def test_head_is_drawn_from_seed(published_teacher: Path) -> None:
    """The same seed draws the same head, another seed another one."""
    first, again, other = (
        load_model(published_teacher, HEAD, {"num_labels": 2}, seed).classifier.weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_pickled_weights_are_refused(published_teacher: Path) -> None:
    """A folder with pickled weights alone is refused, with the command that converts them."""
    weights = published_teacher / "model.safetensors"
    torch.save(load_file(weights), published_teacher / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(UserError, match=r"pytorch_model.bin.*pickled weights.*convert it with"):
        open_source(str(published_teacher), HEAD, 64)


def test_code_is_never_executed(published_teacher: Path, tmp_path: Path) -> None:
    """A folder with code of its own is refused, and the code is not run."""
    proof = tmp_path / "ran"
    (published_teacher / "modeling_own.py").write_text(f"open({str(proof)!r}, 'w')")
    with pytest.raises(UserError, match="never run"):
        open_source(str(published_teacher), HEAD, 64)
    (published_teacher / "modeling_own.py").unlink()
    change_json(published_teacher / "config.json", auto_map={"AutoModel": "modeling_own.Own"})
    with pytest.raises(UserError, match="auto_map"):
        open_source(str(published_teacher), HEAD, 64)
    assert not proof.exists()


def test_foreign_tokenizer_is_refused(published_teacher: Path, tmp_path: Path) -> None:
    """A tokenizer with ids that the model lacks is refused; one with far too few is doubted."""
    config = json.loads((published_teacher / "config.json").read_text(encoding="utf-8"))
    change_json(published_teacher / "config.json", vocab_size=config["vocab_size"] - 1)
    with pytest.raises(UserError, match=r"has the id \d+ .* but the model has \d+ tokens"):
        open_source(str(published_teacher), HEAD, 64)
    change_json(published_teacher / "config.json", vocab_size=10 * config["vocab_size"])
    notes = open_source(str(published_teacher), HEAD, 64).notes
    assert any("make sure that they belong together" in note for note in notes)


def test_trained_positions_limit_texts(published_teacher: Path) -> None:
    """Positions that training has not reached are not used."""
    facts = {"kind": "teacher", "trained_positions": 24}
    (published_teacher / "stillhouse.json").write_text(json.dumps(facts), encoding="utf-8")
    assert open_source(str(published_teacher), HEAD, 64).max_tokens == 24


def test_incomplete_folders_are_refused(published_teacher: Path, tmp_path: Path) -> None:
    """A folder without config, tokenizer or weights, a run, and a file are refused by name."""
    with pytest.raises(UserError, match="is a file"):
        open_source(str(published_teacher / "config.json"), HEAD, 64)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="is a run: publish it"):
        open_source(str(tmp_path / "run"), HEAD, 64)
    with pytest.raises(UserError, match=r"no config.json"):
        open_source(str(tmp_path), HEAD, 64)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(published_teacher / name, bare / name)
    with pytest.raises(UserError, match="no tokenizer"):
        open_source(str(bare), HEAD, 64)
    (bare / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no model.safetensors"):
        open_source(str(bare), HEAD, 64)


def test_decoders_are_refused(tmp_path: Path, tiny_tokenizer: Path) -> None:
    """A model without an encoder's head, or with a decoder, is refused by its family."""
    folder = save_family(tmp_path / "m", tiny_tokenizer, "BertConfig")
    (folder / "config.json").write_text('{"model_type": "t5"}', encoding="utf-8")
    with pytest.raises(UserError, match="encoder with a decoder"):
        open_source(str(folder), HEAD, 64)
    (folder / "config.json").write_text('{"model_type": "clip_vision_model"}', encoding="utf-8")
    with pytest.raises(UserError, match="clip_vision_model"):
        open_source(str(folder), HEAD, 64)


def test_hub_name_offline_lists_models(
    tmp_path: Path, published_teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network, a hub name is refused with the models that are here."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(published_teacher, tmp_path / "export" / "mine")
    with pytest.raises(UserError, match=r"org/model.*Models that are here: export/mine"):
        open_source("org/model", HEAD, 64)
