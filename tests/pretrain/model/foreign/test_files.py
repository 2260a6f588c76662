"""The files of foreign models: shards are read, code and pickles are not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.errors import UserError
from pretrain.model.loading import WEIGHTS, load_trained, locate
from tests.foreign_models import DECODER, WORDS, save


def test_code_in_folder_refused(tmp_path: Path) -> None:
    """A Python file beside a model is refused by name, and never executed."""
    save(tmp_path, "BertForMaskedLM")
    (tmp_path / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match=r"brings code of its own, modeling_own\.py"):
        locate(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_tokenizer_code_refused(tmp_path: Path) -> None:
    """A tokenizer with code of its own is refused by the file that names it."""
    save(tmp_path, "BertForMaskedLM")
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "x.Y"}}')
    with pytest.raises(UserError, match=r"tokenizer_config\.json has auto_map"):
        locate(tmp_path)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Return the folder of a model in several files."""
    save(tmp_path / "whole", "BertForPreTraining").save_pretrained(
        tmp_path / "shards", max_shard_size="20KB"
    )
    assert not (tmp_path / "shards" / WEIGHTS).exists()
    return tmp_path / "shards"


def test_shards_are_read(sharded: Path) -> None:
    """A model in shards is that of a single file; every shard counts in its hash."""
    expected = load_trained(sharded.with_name("whole")).model.state_dict()
    found = load_trained(sharded).model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    before = locate(sharded).sha256
    last = sorted(sharded.glob("*.safetensors"))[-1]
    save_file({n: t + 1 for n, t in load_file(last).items()}, last, {"format": "pt"})
    assert locate(sharded).sha256 != before


def test_missing_shard_is_named(sharded: Path) -> None:
    """A shard that is not there is named."""
    lost = sorted(sharded.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(UserError, match=f"lacks {lost.name}, 1 of the"):
        locate(sharded)


def test_shards_elsewhere_refused(sharded: Path) -> None:
    """An index that leads out of the folder is refused."""
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../whole/model.safetensors"}}))
    with pytest.raises(UserError, match="only safetensors files beside it are read"):
        locate(sharded)


@pytest.mark.parametrize("shards", [1, 2])
def test_conversion_of_pickles_works(tmp_path: Path, shards: int) -> None:
    """The command in the refusal of pickled weights converts them, tensor by tensor."""
    save(tmp_path, "BertForMaskedLM")
    expected = load_trained(tmp_path).model.state_dict()
    weights = load_file(tmp_path / WEIGHTS)
    weights[DECODER] = weights[WORDS]
    (tmp_path / WEIGHTS).unlink()
    names = sorted(weights)
    for number in range(shards):
        suffix = f"-0000{number + 1}-of-0000{shards}" if shards > 1 else ""
        part = {name: weights[name] for name in names[number::shards]}
        torch.save(part, tmp_path / f"pytorch_model{suffix}.bin")
    with pytest.raises(UserError, match="pickled weights are not read") as refusal:
        locate(tmp_path)
    command = str(refusal.value).split("convert it with ")[1]
    command = command.replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True, timeout=120)
    found = load_trained(tmp_path).model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tf_model.h5", "weights in tf_model.h5, .* from_tf=True"),
        ("flax_model.msgpack", "weights in flax_model.msgpack"),
        ("adapter_config.json", "is an adapter of another model: merge them"),
        ("notes.txt", "neither a run folder with a checkpoint nor an exported model"),
    ],
)
def test_other_formats_refused(tmp_path: Path, name: str, message: str) -> None:
    """Folders without safetensors are refused, each with its remedy."""
    save(tmp_path, "BertForMaskedLM")
    (tmp_path / WEIGHTS).rename(tmp_path / name)
    with pytest.raises(UserError, match=message):
        locate(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"\x08\x00", r"model\.safetensors cannot be read"),
        (b"", r"model\.safetensors cannot be read"),
    ],
)
def test_damaged_weights_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """A file that is cut off, or stands for another, is refused by its path."""
    save(tmp_path, "BertForMaskedLM")
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match=message):
        locate(tmp_path)
