"""The tokenizer of an export fits the format and the positions of its model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from data_prep.manifest import describe_files
from data_prep.tokenizers.folder import load_tokenizer
from pretrain.export.tokenizer_files import write_tokenizer_files
from pretrain.model import BertShape
from tests.exports import write_byte_level


def written(source: Path, folder: Path, shape: BertShape) -> dict[str, Any]:
    """Write the files of a tokenizer and return its tokenizer_config.json."""
    folder.mkdir()
    write_tokenizer_files(load_tokenizer(source), folder, shape)
    config: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    return config


@pytest.mark.parametrize("positions", [64, 512, 1024])
def test_longest_input_is_positions(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape, positions: int
) -> None:
    """model_max_length is the number of positions, more or fewer than BERT's 512."""
    shape = replace(tiny_shape, positions=positions)
    assert written(tiny_tokenizer, tmp_path / "out", shape)["model_max_length"] == positions


@pytest.mark.parametrize("byte_level", [False, True])
@pytest.mark.parametrize(("types", "class_name"), [(True, "Bert"), (False, "DistilBert")])
def test_inputs_are_those_of_format(
    tmp_path: Path,
    tiny_tokenizer: Path,
    tiny_shape: BertShape,
    byte_level: bool,
    types: bool,
    class_name: str,
) -> None:
    """DistilBERT has no token types; the class is one that transformers 4 and 5 have."""
    source = tmp_path / "byte-level" if byte_level else tiny_tokenizer
    if byte_level:
        write_byte_level(source)
    config = written(source, tmp_path / "out", replace(tiny_shape, token_types=types))
    assert ("token_type_ids" in config["model_input_names"]) == types
    usual = f"{class_name}Tokenizer"
    assert config["tokenizer_class"] == ("PreTrainedTokenizerFast" if byte_level else usual)
    assert ("do_lower_case" in config) == (not byte_level)
    assert config["mask_token"] == ("<mask>" if byte_level else "[MASK]")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    expected = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert names == (expected if byte_level else expected | {"vocab.txt"})


def test_truncation_is_not_published(
    tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape
) -> None:
    """Truncation and padding that a tokenizer.json carries are left out; its ids stay."""
    source = tmp_path / "tokenizer"
    source.mkdir()
    for path in tiny_tokenizer.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(source / "tokenizer.json"))
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"] |= describe_files(source, ["tokenizer.json"])
    (source / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    written(source, tmp_path / "out", tiny_shape)
    content = json.loads((tmp_path / "out" / "tokenizer.json").read_text(encoding="utf-8"))
    assert content["truncation"] is None and content["padding"] is None
    own, former = (load_tokenizer(p).backend for p in (tiny_tokenizer, source))
    published = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    for tokenizer in (own, former):
        assert (
            published.encode("bake the old mill").ids == tokenizer.encode("bake the old mill").ids
        )
