"""Tokenizers of others get the ids that plain transformers gives, or a refusal in one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from data_prep.errors import UserError
from data_prep.tokenizers.folder import load_tokenizer, save_tokenizer
from data_prep.tokenizers.foreign.adoption import adopt_tokenizer, check_same_ids
from data_prep.tokenizers.roles import ROBERTA_NAMES
from data_prep.tokenizers.sentencepiece import train_sentencepiece
from tests.data_prep.tokenizers.foreign.conftest import (
    BERT,
    ROBERTA,
    TEXTS,
    TOKENS,
    FolderOf,
    byte_level,
    wordpiece,
)

VOCABULARY = "".join(f"{token}\n" for token in TOKENS)


def ids_of(folder: Path) -> list[list[int]]:
    """Return the ids that transformers gives the texts, whole, whatever truncation is set."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    encode = tokenizer.backend_tokenizer.encode
    return [encode(text, add_special_tokens=False).ids for text in TEXTS]


def take_over(folder: Path, into: Path) -> list[list[int]]:
    """Take a folder over, and return the ids of the texts by our copy, also in transformers."""
    adopted = adopt_tokenizer(folder)
    save_tokenizer(adopted.backend, into, "existing", names=adopted.names)
    check_same_ids(adopted, into)
    backend = load_tokenizer(into).backend
    ids = [backend.encode(text, add_special_tokens=False).ids for text in TEXTS]
    assert ids == ids_of(into)
    # The folder of a published model has a config.json too.
    (into / "config.json").write_text('{"model_type": "bert"}')
    assert ids == ids_of(into)
    return ids


@pytest.mark.parametrize(
    ("pipeline", "config"),
    [
        ({"lowercase": True}, {"do_lower_case": False}),
        ({"lowercase": False}, {"do_lower_case": True}),
        ({"lowercase": False}, {}),
        ({"lowercase": True}, {"do_lower_case": True, "strip_accents": False}),
        ({"lowercase": False, "strip_accents": True}, {"do_lower_case": False}),
        ({"lowercase": False}, {"do_lower_case": False, "tokenize_chinese_chars": False}),
        ({"lowercase": False, "longest": 4}, {"do_lower_case": False}),
    ],
)
def test_config_overrides_tokenizer_file(
    pipeline: dict[str, Any],
    config: dict[str, Any],
    folder_of: FolderOf,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where the two files disagree, the ids are those of transformers and a log line names both."""
    tokenizer = wordpiece(**pipeline)
    folder = folder_of(tokenizer, tokenizer_config__json={**BERT, **config})
    ids = take_over(folder, tmp_path / "ours")
    assert ids == ids_of(folder)
    assert ids != [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    line = capsys.readouterr().err
    assert f"{folder}/tokenizer_config.json overrides {folder}/tokenizer.json" in line


def test_model_config_overrides_tokenizer_file(
    folder_of: FolderOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The class may come from config.json alone, whose BERT lower-cases."""
    folder = folder_of(wordpiece(lowercase=False), config__json={"model_type": "bert"})
    assert take_over(folder, tmp_path / "ours") == ids_of(folder)
    assert f"{folder}/config.json overrides" in capsys.readouterr().err


@pytest.mark.parametrize("config", [None, {**BERT, "do_lower_case": False}])
def test_truncation_and_padding_are_removed(
    config: dict[str, Any] | None, folder_of: FolderOf, tmp_path: Path
) -> None:
    """Truncation and padding that were left in tokenizer.json cut no text."""
    tokenizer = wordpiece(lowercase=False)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=16)
    files = {} if config is None else {"tokenizer_config__json": config}
    folder = folder_of(tokenizer, **files)
    assert take_over(folder, tmp_path / "ours") == ids_of(folder)
    assert json.loads((tmp_path / "ours/tokenizer.json").read_text())["truncation"] is None


def test_old_file_without_model_type_is_read(folder_of: FolderOf, tmp_path: Path) -> None:
    """Files of the first versions of the library do not name the type of their model."""
    content = json.loads(wordpiece(lowercase=True).to_str())
    del content["model"]["type"]
    folder = folder_of(tokenizer__json=content)
    assert take_over(folder, tmp_path / "ours") == ids_of(folder)


@pytest.mark.parametrize("settings", [{"prefix": "@@"}, {"longest": 5}, {"longest": 200}])
def test_settings_of_tokenizer_file_are_kept(
    settings: dict[str, Any], folder_of: FolderOf, tmp_path: Path
) -> None:
    """Without BERT's class, another prefix and another longest word are kept."""
    tokenizer = wordpiece(lowercase=False, **settings)
    folder = folder_of(tokenizer)
    ids = take_over(folder, tmp_path / "ours")
    assert ids == [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]


def test_prefix_that_class_ignores_is_refused(folder_of: FolderOf) -> None:
    """BERT's class has no prefix but ##, which would make [UNK] of most words."""
    folder = folder_of(wordpiece(prefix="@@"), tokenizer_config__json=BERT)
    with pytest.raises(UserError, match=r"tokenizer_config\.json .*'@@' of .*tokenizer\.json"):
        adopt_tokenizer(folder)


def test_added_tokens_keep_ids(folder_of: FolderOf, tmp_path: Path) -> None:
    """Words that were added to a published vocabulary keep their ids."""
    tokenizer = wordpiece(lowercase=False)
    tokenizer.add_tokens([AddedToken("odd", single_word=True), "MEADOW"])
    folder = folder_of(tokenizer, tokenizer_config__json={**BERT, "do_lower_case": False})
    ids = take_over(folder, tmp_path / "ours")
    assert ids == ids_of(folder) and len(TOKENS) + 1 in ids[1]


def test_byte_level_folder_keeps_roles(folder_of: FolderOf, tmp_path: Path) -> None:
    """A folder of RoBERTa's kind keeps its ids and the special tokens of its roles."""
    folder = folder_of(byte_level(), tokenizer_config__json=ROBERTA)
    assert take_over(folder, tmp_path / "ours") == ids_of(folder)
    ours = load_tokenizer(tmp_path / "ours")
    assert (ours.cls_id, ours.pad_id, ours.sep_id, ours.unk_id, ours.mask_id) == (0, 1, 2, 3, 4)
    assert AutoTokenizer.from_pretrained(tmp_path / "ours").mask_token == "<mask>"


def test_byte_level_file_alone_keeps_roles(folder_of: FolderOf) -> None:
    """Without a configuration, RoBERTa's special tokens are recognised by their names."""
    folder = folder_of(byte_level())
    assert adopt_tokenizer(folder / "tokenizer.json").names == ROBERTA_NAMES


def test_slow_byte_level_folder_is_converted(folder_of: FolderOf, tmp_path: Path) -> None:
    """vocab.json and merges.txt alone are read when the class is named, else refused."""
    model = json.loads(byte_level().to_str())["model"]
    merges = "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"])
    folder = folder_of(vocab__json=model["vocab"], merges__txt=merges)
    with pytest.raises(UserError, match=r"merges\.txt, vocab\.json .*name the class in its"):
        adopt_tokenizer(folder)
    folder = folder_of(tokenizer_config__json=ROBERTA)
    assert take_over(folder, tmp_path / "ours") == ids_of(folder)


def test_sentencepiece_folder_is_converted(folder_of: FolderOf, tmp_path: Path) -> None:
    """A SentencePiece model alone is read when the class is named, else refused."""
    model = train_sentencepiece(
        lambda: TEXTS * 5, kind="unigram", vocab_size=60, lowercase=False, alphabet=50
    )
    folder = folder_of(**{"sentencepiece__bpe__model": model})
    with pytest.raises(UserError, match=r"no tokenizer\.json, .* sentencepiece\.bpe\.model"):
        adopt_tokenizer(folder)
    folder = folder_of(tokenizer_config__json={"tokenizer_class": "XLMRobertaTokenizer"})
    assert take_over(folder, tmp_path / "ours") == ids_of(folder)


@pytest.mark.parametrize("lower", [True, False, None])
def test_vocabulary_folder_is_adopted(
    lower: bool | None, folder_of: FolderOf, tmp_path: Path
) -> None:
    """A folder of a vocab.txt follows the do_lower_case beside it; BERT's default is true."""
    config = {} if lower is None else {"do_lower_case": lower}
    folder = folder_of(vocab__txt=VOCABULARY, tokenizer_config__json=config)
    ids = take_over(folder, tmp_path / "ours")
    folder_of(tokenizer_config__json={**config, "tokenizer_class": "BertTokenizer"})
    assert ids == ids_of(folder)


def test_repeated_tokens_keep_ids(folder_of: FolderOf, tmp_path: Path) -> None:
    """With repeated and blank lines the ids are those of transformers: the last line counts."""
    lines = VOCABULARY.replace("saddle\n", "saddle\n\nlantern\n.\n")
    folder = folder_of(vocab__txt=lines, config__json={"model_type": "bert"})
    assert take_over(folder, tmp_path / "ours") == ids_of(folder)
    assert len(load_tokenizer(tmp_path / "ours").ordinary_ids) == len(TOKENS) - 5


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config__json": '{"do_lower_case": true,'}, r"_config\.json is not JSON"),
        ({"tokenizer_config__json": "[]"}, r"_config\.json holds a JSON list instead of an object"),
        ({"special_tokens_map__json": '"x"'}, r"_map\.json holds a JSON string"),
        ({"tokenizer__json": '{"model": '}, r"tokenizer\.json is not JSON"),
        ({"tokenizer__json": "{}"}, r"theirs/tokenizer\.json is not a fast tokenizer"),
        ({"tokenizer__json": "version https://git-lfs.github.com/spec/v1\n"}, "pointer of Git LFS"),
        ({"tokenizer_config__json": b'{"a": "\xe9"}'}, r"is not UTF-8: line 1 has the byte 0xe9"),
        ({"tokenizer_config__json": {"auto_map": {"AutoTokenizer": ["a.B", None]}}}, "custom"),
        ({"tokenizer_config__json": {"tokenizer_class": "BertJapaneseTokenizer"}}, "no fast token"),
    ],
)  # fmt: skip
def test_unreadable_folder_is_refused(
    files: dict[str, Any], message: str, folder_of: FolderOf
) -> None:
    """A file that cannot be read is named in one sentence."""
    tokenizer = None if "fast token" in message and "no " in message else wordpiece()
    folder = folder_of(tokenizer, **{"vocab__txt": VOCABULARY, **files})
    with pytest.raises(UserError, match=message) as refusal:
        adopt_tokenizer(folder)
    assert "\n" not in str(refusal.value) and str(folder) in str(refusal.value)


def test_byte_order_mark_is_accepted(folder_of: FolderOf, tmp_path: Path) -> None:
    """JSON files that an editor saved with a byte order mark are read as without it."""
    config = {**BERT, "do_lower_case": False}
    plain = folder_of(wordpiece(lowercase=False), tokenizer_config__json=config)
    expected = ids_of(plain)
    marked = b"\xef\xbb\xbf" + json.dumps(config).encode()
    assert take_over(folder_of(tokenizer_config__json=marked), tmp_path / "ours") == expected


def test_missing_role_is_refused(folder_of: FolderOf) -> None:
    """A vocabulary without a mask token is refused, though transformers would add one."""
    tokens = [token for token in TOKENS if token != "[MASK]"]
    folder = folder_of(wordpiece(tokens=tokens), tokenizer_config__json=BERT)
    with pytest.raises(UserError, match=r"has no \[MASK\]"):
        adopt_tokenizer(folder)


def test_copy_of_other_ids_is_refused(folder_of: FolderOf, tmp_path: Path) -> None:
    """A copy to which transformers gives other ids is not kept."""
    adopted = adopt_tokenizer(folder_of(wordpiece(lowercase=False)))
    other: Tokenizer = wordpiece(lowercase=True)
    save_tokenizer(other, tmp_path / "ours", "existing")
    with pytest.raises(UserError, match=r"gives 'Stone' the tokens .* instead of"):
        check_same_ids(adopted, tmp_path / "ours")
