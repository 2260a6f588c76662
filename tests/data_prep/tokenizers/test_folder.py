"""Tokenizer folders: written, verified, and opened by transformers."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from data_prep.errors import UserError
from data_prep.tokenizers.folder import (
    load_tokenizer,
    read_backend,
    read_tokenizer,
    role_names,
    save_tokenizer,
)
from data_prep.tokenizers.wordpiece import SPECIAL_TOKENS, bert_tokenizer

TOKENS = (*SPECIAL_TOKENS, "[unused0]", "the", "cat", "##s", "sat", ".", "猫", "ete", "é")
VOCABULARY = {token: index for index, token in enumerate(TOKENS)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tokenizer(bert_tokenizer(VOCABULARY, True), tmp_path / "tokenizer", "wordpiece")
    return tmp_path / "tokenizer"


def test_saved_tokenizer_loads(folder: Path) -> None:
    """A saved tokenizer loads with its ids and fingerprint."""
    loaded = load_tokenizer(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (loaded.pad_id, loaded.unk_id, loaded.cls_id, loaded.sep_id, loaded.mask_id) == (
        0, 1, 2, 3, 4,
    )  # fmt: skip
    assert loaded.vocab_size == len(TOKENS) == manifest["vocab_size"]
    assert loaded.fingerprint == manifest["fingerprint"] and manifest["kind"] == "wordpiece"
    assert (folder / "vocab.txt").read_text("utf-8").splitlines() == list(TOKENS)


def test_fingerprints_differ_by_tokenizer(tmp_path: Path, folder: Path) -> None:
    """Different tokenizers have different fingerprints."""
    save_tokenizer(bert_tokenizer(VOCABULARY, False), tmp_path / "cased", "wordpiece")
    save_tokenizer(bert_tokenizer(VOCABULARY, True), tmp_path / "again", "wordpiece")
    first = load_tokenizer(folder).fingerprint
    assert load_tokenizer(tmp_path / "again").fingerprint == first
    assert load_tokenizer(tmp_path / "cased").fingerprint != first


def test_ordinary_ids_exclude_special(folder: Path) -> None:
    """Ordinary ids are all but special and unused ones."""
    ordinary = load_tokenizer(folder).ordinary_ids
    assert ordinary.dtype == np.int64 and ordinary.tolist() == [6, 7, 8, 9, 10, 11, 12, 13]


@pytest.mark.parametrize("lowercase", [True, False])
def test_auto_tokenizer_gives_same_ids(tmp_path: Path, lowercase: bool) -> None:
    """`AutoTokenizer` opens the folder and gives the same ids."""
    save_tokenizer(bert_tokenizer(VOCABULARY, lowercase), tmp_path, "wordpiece")
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    assert theirs.is_fast and theirs.model_max_length == 512
    for role in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(theirs, f"{role}_token_id") == getattr(ours, f"{role}_id")
    for text in ("The cats sat.", "THE 猫猫 sat\u200b é", "[MASK] Éte [unused0]"):
        assert theirs.encode(text) == ours.backend.encode(text).ids
    pair = theirs("the cats", "sat .")
    assert pair["input_ids"] == ours.backend.encode("the cats", "sat .").ids
    assert pair["token_type_ids"] == [0, 0, 0, 0, 0, 1, 1, 1]
    assert theirs.decode(theirs.encode("the cats sat."), skip_special_tokens=True) == (
        "the cats sat."
    )


def test_other_algorithm_keeps_special_tokens(tmp_path: Path) -> None:
    """A tokenizer of another algorithm keeps its own special tokens."""
    words = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "hello", "world"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), words[:5], strict=True))
    save_tokenizer(backend, tmp_path, "existing", names=names)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.pad_id, loaded.mask_id) == (0, 4) and loaded.ordinary_ids.tolist() == [5, 6]
    assert role_names(tmp_path) == names and not (tmp_path / "vocab.txt").exists()
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.mask_token == "<mask>" and theirs.encode("hello world") == [5, 6]


def test_changed_folder_is_refused(folder: Path) -> None:
    """A changed folder is refused."""
    path = folder / "tokenizer.json"
    path.write_text(path.read_text("utf-8").replace('"cat"', '"dog"'), "utf-8")
    with pytest.raises(UserError, match=r"tokenizer\.json .*changed"):
        load_tokenizer(folder)


@pytest.mark.parametrize("claimed", [None, "0" * 16])
def test_wrong_fingerprint_is_refused(folder: Path, claimed: str | None) -> None:
    """A manifest with another fingerprint is refused."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["fingerprint"] = claimed
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"its manifest has {claimed}"):
        load_tokenizer(folder)


def test_exported_folder_needs_no_manifest(folder: Path) -> None:
    """An exported folder is read without a manifest."""
    expected = load_tokenizer(folder)
    (folder / "manifest.json").unlink()
    found = read_tokenizer(folder)
    assert (found.fingerprint, found.vocab_size) == (expected.fingerprint, expected.vocab_size)
    assert (found.pad_id, found.mask_id) == (0, 4)


def test_missing_manifest_names_command(tmp_path: Path) -> None:
    """A folder without manifest is refused with the command that makes one."""
    with pytest.raises(UserError, match=r"has no manifest\.json: make it with launch/prepare_data"):
        load_tokenizer(tmp_path)


def test_missing_special_tokens_are_refused(tmp_path: Path) -> None:
    """A vocabulary without special tokens cannot be saved."""
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, "[UNK]"))
    with pytest.raises(UserError, match=r"has no \[PAD\], \[CLS\], \[SEP\], \[MASK\]"):
        save_tokenizer(backend, tmp_path / "t", "existing")
    assert not (tmp_path / "t").exists()


def test_invalid_tokenizer_file_is_refused(tmp_path: Path) -> None:
    """A file that is not a tokenizer is refused."""
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="is not a fast tokenizer"):
        read_backend(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match=r"There is no .*none\.json"):
        read_backend(tmp_path / "none.json")
