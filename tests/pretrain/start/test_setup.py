"""Continued pretraining: what a model takes over from its start."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from data_prep.errors import UserError
from data_prep.manifest import file_sha256, write_manifest
from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer
from pretrain.config.model import ModelOptions
from pretrain.distributed import Cluster
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.hf_conversion import to_hf_config, to_hf_name
from pretrain.model.loading import WEIGHTS
from pretrain.run_facts import StartFacts
from pretrain.start.setup import continue_from_start
from tests.run_folders import facts_of, make_run
from tests.starts import (
    EMBEDDINGS,
    POSITIONS,
    change_weights,
    recipe,
    resize_vocabulary,
    weights_of,
)
from tests.synthetic_corpora import WORDS


def test_weights_and_shape_are_taken_over(
    published_teacher: Path,
    tokenizer: LoadedTokenizer,
    tiny_shape: BertShape,
    alone: Cluster,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without keys of a shape, the model is the start, and the facts have its name and hash."""
    found = continue_from_start(recipe(published_teacher), tokenizer, alone)
    assert found.model.shape == tiny_shape
    expected = weights_of(published_teacher)
    for name, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, expected[name])
    assert found.facts == StartFacts(
        name="teacher",
        weights=file_sha256(published_teacher / WEIGHTS),
        tokenizer=tokenizer.fingerprint,
        trained_positions=64,
    )
    printed = capsys.readouterr().out
    assert printed.startswith(f"Starting from {published_teacher} (sha256 ")
    assert printed.count("\n") == 1, "nothing else is to be said"


def test_run_folder_is_a_start(
    tmp_path: Path, tiny_tokenizer: Path, tokenizer: LoadedTokenizer, tiny_shape: BertShape,
    alone: Cluster,
) -> None:  # fmt: skip
    """The newest checkpoint of a run of ours is continued with the tokenizer in its folder."""
    model = make_run(tmp_path / "base", tiny_tokenizer, "teacher", tiny_shape)
    found = continue_from_start(recipe(tmp_path / "base"), tokenizer, alone)
    assert torch.equal(found.model.state_dict()[EMBEDDINGS], model.state_dict()[EMBEDDINGS])
    assert (found.facts.name, found.facts.trained_positions) == ("base", 64)


def test_missing_heads_begin_at_random(
    published_teacher: Path,
    tokenizer: LoadedTokenizer,
    tiny_shape: BertShape,
    alone: Cluster,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A start without heads gets new ones, drawn as those of a model from scratch, and says so."""
    change_weights(published_teacher, "cls.", "bert.pooler")
    found = continue_from_start(recipe(published_teacher), tokenizer, alone).model.state_dict()
    fresh = Bert(tiny_shape)
    initialise(fresh, recipe(published_teacher).train.seed)
    for name, tensor in fresh.state_dict().items():
        is_new = name.startswith(("cls.", "bert.pooler"))
        # Biases and LayerNorms are alike in all models without training.
        assert torch.equal(found[name], tensor) == is_new or tensor.dim() == 1, name
    printed = capsys.readouterr().out
    assert (
        "at random, because the start has none: the MLM head, the NSP head, the pooler" in printed
    )


def test_unused_heads_are_left_out(
    published_teacher: Path,
    tokenizer: LoadedTokenizer,
    alone: Cluster,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without pairs the NSP head is left out, which the log says; the pooler below it is kept."""
    found = continue_from_start(recipe(published_teacher, pairs="none"), tokenizer, alone)
    assert not found.model.shape.next_sentence
    name = "bert.pooler.dense.weight"
    assert torch.equal(found.model.state_dict()[name], weights_of(published_teacher)[name])
    assert "that this recipe does not train: the NSP head" in capsys.readouterr().out


def test_positions_are_interpolated_or_cut(
    published_teacher: Path,
    tokenizer: LoadedTokenizer,
    alone: Cluster,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another number of positions is said; those trained are the start's until a run goes on."""
    longer = continue_from_start(recipe(published_teacher, positions=100), tokenizer, alone)
    old, new = weights_of(published_teacher)[POSITIONS], longer.model.state_dict()[POSITIONS]
    assert new.shape[0] == longer.model.shape.positions == 100
    # The last row but by rounding: its place among the old rows is computed in fp32.
    assert torch.equal(new[0], old[0]) and torch.allclose(new[99], old[63], atol=1e-6)
    assert longer.facts.trained_positions == 64
    assert "Positions: 100 positions, interpolated from 64." in capsys.readouterr().out
    cut = continue_from_start(recipe(published_teacher, positions=32), tokenizer, alone)
    assert torch.equal(cut.model.state_dict()[POSITIONS], old[:32])
    assert cut.facts.trained_positions == 32
    assert "Positions: the first 32 of 64 positions." in capsys.readouterr().out


def test_vocabulary_is_transferred(
    published_teacher: Path,
    tokenizer: LoadedTokenizer,
    other_tokenizer: LoadedTokenizer,
    alone: Cluster,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Embeddings and MLM bias follow their tokens; a new word is the mean of its pieces."""
    bias = torch.arange(201.0)
    change_weights(published_teacher, **{"cls.predictions.bias": bias})
    tree = recipe(published_teacher, vocabulary="transfer")
    found = continue_from_start(tree, other_tokenizer, alone)
    state, old = found.model.state_dict(), weights_of(published_teacher)[EMBEDDINGS]
    assert found.model.shape.vocab_size == other_tokenizer.vocab_size
    assert found.model.shape.pad_id == other_tokenizer.pad_id == 1
    for token in ("[CLS]", WORDS[1], WORDS[150]):
        here, there = (t.backend.token_to_id(token) for t in (other_tokenizer, tokenizer))
        assert torch.equal(state[EMBEDDINGS][here], old[there])
        assert state["cls.predictions.bias"][here] == bias[there]
    assert found.facts.tokenizer == tokenizer.fingerprint != other_tokenizer.fingerprint
    assert re.search(r"Vocabulary: \d+ tokens kept, .*, \d+ dropped\.", capsys.readouterr().out)


def test_padded_vocabulary_is_kept(
    published_teacher: Path, tokenizer: LoadedTokenizer, alone: Cluster
) -> None:
    """Embeddings beyond the tokenizer's ids stay where the tokenizer is the same."""
    resize_vocabulary(published_teacher, 208)
    found = continue_from_start(recipe(published_teacher), tokenizer, alone)
    assert found.model.shape.vocab_size == 208


def write_start(folder: Path, shape: BertShape, tokenizer: Path) -> Bert:
    """Write the folder of a published model of another shape, with random weights."""
    model = Bert(shape)
    initialise(model, seed=3)
    folder.mkdir()
    weights = {to_hf_name(name, shape): t.clone() for name, t in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(to_hf_config(shape)), encoding="utf-8")
    for path in tokenizer.glob("*.json"):
        shutil.copyfile(path, folder / path.name)
    return model


def test_untied_decoder_is_transferred(
    tmp_path: Path,
    tiny_shape: BertShape,
    tiny_tokenizer: Path,
    other_tokenizer: LoadedTokenizer,
    alone: Cluster,
) -> None:
    """A decoder of its own stays one, and its rows follow their tokens as the embeddings do."""
    untied = dataclasses.replace(tiny_shape, tied_decoder=False)
    start = write_start(tmp_path / "untied", untied, tiny_tokenizer)
    tree = recipe(tmp_path / "untied", vocabulary="transfer")
    found = continue_from_start(tree, other_tokenizer, alone).model
    assert not found.shape.tied_decoder
    here = other_tokenizer.backend.token_to_id(WORDS[150])
    there = load_tokenizer(tiny_tokenizer).backend.token_to_id(WORDS[150])
    name = "cls.predictions.decoder.weight"
    assert torch.equal(found.state_dict()[name][here], start.state_dict()[name][there])
    assert not torch.equal(found.state_dict()[name], found.state_dict()[EMBEDDINGS])


def test_distilbert_is_continued_without_pairs(
    tmp_path: Path,
    tiny_shape: BertShape,
    tiny_tokenizer: Path,
    tokenizer: LoadedTokenizer,
    alone: Cluster,
) -> None:
    """A start without segment embeddings trains on single segments, and pairs are refused."""
    shape = dataclasses.replace(tiny_shape, token_types=False, next_sentence=False)
    start = write_start(tmp_path / "distilbert", shape, tiny_tokenizer)
    found = continue_from_start(recipe(tmp_path / "distilbert", pairs="none"), tokenizer, alone)
    assert found.model.shape == shape
    for name, tensor in start.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor)
    with pytest.raises(UserError, match=r"no segment embeddings.*set samples\.pairs=none"):
        continue_from_start(recipe(tmp_path / "distilbert"), tokenizer, alone)


def test_begun_run_needs_no_start(
    tmp_path: Path, tiny_tokenizer: Path, tokenizer: LoadedTokenizer, tiny_shape: BertShape,
    alone: Cluster,
) -> None:  # fmt: skip
    """Where the run has a checkpoint, its manifest gives the shape, though the start is gone."""
    run = tmp_path / "run"
    model = make_run(run, tiny_tokenizer, "teacher", tiny_shape)
    start = StartFacts(name="gone", weights="a" * 64, tokenizer="b" * 16, trained_positions=48)
    facts = dataclasses.replace(facts_of(model, "teacher", tokenizer.fingerprint), start=start)
    checkpoint = run / "checkpoints" / "step_00000005"
    write_manifest(checkpoint, facts.to_dict(), [WEIGHTS])
    found = continue_from_start(recipe(tmp_path / "gone"), tokenizer, alone)
    assert found.facts == start
    assert found.model.shape == tiny_shape


def test_equal_keys_are_accepted(
    published_teacher: Path, tokenizer: LoadedTokenizer, tiny_shape: BertShape, alone: Cluster
) -> None:
    """A recipe may state the shape that the start has, and another dropout."""
    same = {key: getattr(tiny_shape, key) for key in ("layers", "width", "heads", "feed_forward")}
    found = continue_from_start(recipe(published_teacher, **same, dropout=0.2), tokenizer, alone)
    assert found.model.shape == dataclasses.replace(tiny_shape, dropout=0.2)


def test_random_model_has_no_nulls() -> None:
    """Without a start, every key of the shape has a value, also where null is given."""
    keys = {"start": None, "shape": "mini", "layers": None, "positions": None}
    model = ModelOptions.model_validate(keys)
    assert (model.layers, model.width, model.heads, model.feed_forward) == (4, 256, 4, 1024)
    assert (model.dropout, model.norm) == (0.1, "post")
