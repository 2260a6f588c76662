"""The tokenizer of an export, made for the format and the positions of its model.

A fixed list of files is written; what else lies in the folder of a tokenizer is not published.
"""

from pathlib import Path
from typing import Any

from data_prep.manifest import read_manifest, write_json
from data_prep.tokenizers.folder import BACKEND, LoadedTokenizer
from data_prep.tokenizers.json_files import read_json_object
from data_prep.tokenizers.roles import CONFIG, ROLE_MAP, role_names
from pretrain.model import BertShape

VOCABULARY = "vocab.txt"
TOKENIZER_FILES = (BACKEND, CONFIG, ROLE_MAP, VOCABULARY)
# Settings from which BERT's class rebuilds its pipeline; others have no meaning for it.
_PIPELINE = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
_INPUTS = ("input_ids", "token_type_ids", "attention_mask")


def write_tokenizer_files(tokenizer: LoadedTokenizer, folder: Path, shape: BertShape) -> None:
    """Write the files of a verified tokenizer that transformers 4 and 5 read.

    Args:
        tokenizer: of the run.
        folder: of the export.
        shape: of the model; its positions are the longest input.
    """
    source = tokenizer.path
    _write_backend(tokenizer, folder / BACKEND)
    special = {f"{role}_token": name for role, name in role_names(source).items()}
    write_json(folder / CONFIG, _config(source, shape) | special)
    # transformers 4 reads the special tokens from here, 5 from the file above.
    write_json(folder / ROLE_MAP, special)
    # Listed means compared with its hash; any other file of this name is not the tokenizer's.
    if VOCABULARY in read_manifest(source, "tokenizer", "restore the run folder")["files"]:
        (folder / VOCABULARY).write_bytes((source / VOCABULARY).read_bytes())


def _write_backend(tokenizer: LoadedTokenizer, path: Path) -> None:
    content = read_json_object(tokenizer.path / BACKEND)
    if content.get("truncation") or content.get("padding"):
        tokenizer.backend.save(str(path))  # which has neither
    else:
        path.write_bytes((tokenizer.path / BACKEND).read_bytes())


def _config(source: Path, shape: BertShape) -> dict[str, Any]:
    stated = read_json_object(source / CONFIG)
    is_bert = str(stated.get("tokenizer_class", "")).startswith("BertTokenizer")
    config: dict[str, Any] = {"tokenizer_class": _class_name(is_bert, shape)}
    if is_bert:
        config |= {key: stated[key] for key in _PIPELINE if key in stated}
    inputs = [name for name in _INPUTS if shape.token_types or name != "token_type_ids"]
    return config | {"model_max_length": shape.positions, "model_input_names": inputs}


def _class_name(is_bert: bool, shape: BertShape) -> str:
    """Return the class that reads the files in transformers 4 and 5.

    Names with `Fast` are aliases in 5, and `TokenizersBackend` does not exist in 4.
    """
    if not is_bert:
        return "PreTrainedTokenizerFast"
    return "BertTokenizer" if shape.token_types else "DistilBertTokenizer"
