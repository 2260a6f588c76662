"""Encoders to fine-tune: found, checked against their tokenizer, loaded with the head of a task.

Weights are read from safetensors alone, and no code of a model folder is executed.
"""

import contextlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from data_prep.errors import UserError
from data_prep.hub import DESCRIPTION, WEIGHTS, fetch, hub_name
from data_prep.tokenizers.json_files import read_json_object
from pretrain.model.foreign.files import WEIGHTS as SAFETENSORS
from pretrain.model.foreign.files import find_weights, refuse_code
from pretrain.run_facts import RunFacts

_TOKENIZERS = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model"),
    *("sentencepiece.bpe.model", "spm.model"),
)
_FEW = 0.9  # share of the model's vocabulary below which its tokenizer is doubtful


@dataclass(frozen=True)
class Source:
    """An encoder on disk that was checked.

    Attributes:
        name: as it was given.
        folder: where its files are.
        max_tokens: most tokens of a text that it reads, special ones included.
        notes: what is to be said about it.
    """

    name: str
    folder: Path
    max_tokens: int
    notes: tuple[str, ...] = ()

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return load_tokenizer(self.folder)

    @property
    def weights_bytes(self) -> int:
        """Size of its weights on disk."""
        return weights_bytes(self.folder)


def open_source(name: str, head: str, max_tokens: int) -> Source:
    """Find an encoder and check that it can be fine-tuned.

    Args:
        name: of a folder, or of a model on the Hugging Face hub.
        head: `Auto` class of the task.
        max_tokens: longer texts are cut there, if the model does not end before.

    Raises:
        UserError: for a folder that is no model, has pickled weights alone or code of its own, a
            model without such a head, or a tokenizer with ids that the model lacks.
    """
    _silence()
    folder = _find(name)
    _check_files(folder)
    config = _load_config(folder, head)
    tokenizer = load_tokenizer(folder)
    notes = list(_check_tokenizer(folder, tokenizer, config))
    limit, why = _longest(folder, tokenizer, config)
    if limit < max_tokens:
        notes.append(f"{name} reads {limit} tokens of a text ({why})")
    return Source(name, folder, min(limit, max_tokens), tuple(notes))


def load_model(folder: Path, head: str, settings: dict[str, Any], seed: int) -> Any:
    """Return a model with a head of its task, in fp32; the head is drawn from the seed.

    Args:
        folder: of the model.
        head: `Auto` class.
        settings: for its config, such as the number of labels.
        seed: of the head.
    """
    import transformers

    _silence()
    torch.manual_seed(seed)
    try:
        return getattr(transformers, head).from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            # A head of another task has another shape: it is drawn anew.
            ignore_mismatched_sizes=True,
            **settings,
        )
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        raise UserError(f"{folder} cannot be loaded ({_first_line(error)}): correct it.") from error


def load_tokenizer(folder: Path) -> Any:
    """Return the fast tokenizer of a model folder.

    Raises:
        UserError: when there is none.
    """
    from transformers import AutoTokenizer

    # Of a folder without any, transformers makes a tokenizer of special tokens alone.
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise UserError(f"{folder} has no tokenizer: put its tokenizer.json beside config.json.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} has no tokenizer that transformers can load ({_first_line(error)}): put its "
            "tokenizer.json beside config.json."
        ) from error
    if not tokenizer.is_fast:
        raise UserError(f"{folder} has no fast tokenizer: save its tokenizer.json there.")
    if tokenizer.pad_token_id is None:
        raise UserError(f"The tokenizer of {folder} has no padding token: name an encoder.")
    return tokenizer


def weights_bytes(folder: Path) -> int:
    """Return the size of the safetensors of a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _find(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{name} is a file: name the folder of a model.")
    # `Path` drops the dot that marks a path.
    hub = None if name.startswith((".", "/", "~")) else hub_name(path)
    if hub is None:
        raise UserError(f"There is no folder {name}: correct the path. {_local_options()}")
    try:
        fetch(hub, DESCRIPTION)
        return fetch(hub, WEIGHTS)
    except UserError as error:
        raise UserError(f"{error} {_local_options()}") from error


def _local_options() -> str:
    """Return a sentence on models that are here: published folders and the hub's cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    found = sorted(str(path.parent) for path in Path().glob("export/*/config.json"))
    with contextlib.suppress(CacheNotFound):
        found += sorted(r.repo_id for r in scan_cache_dir().repos if r.repo_type == "model")
    if not found:
        return "No model is in export/ or in the hub's cache: give the folder of one."
    return f"Models that are here: {', '.join(found[:10])}."


def _check_files(folder: Path) -> None:
    if (folder / "checkpoints").is_dir():
        raise UserError(f"{folder} is a run: publish it with publish_student.py and name that.")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json, so it is no model: name another folder.")
    refuse_code(folder)
    if not find_weights(folder):  # those in other formats are refused with how to convert them
        raise UserError(f"{folder} has no {SAFETENSORS}: name a folder with weights.")


def _load_config(folder: Path, head: str) -> Any:
    import transformers
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError, StrictDataclassError) as error:
        raise UserError(
            f"{folder / 'config.json'} describes no model of transformers "
            f"({_first_line(error)}): correct it."
        ) from error
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"{folder} is an encoder with a decoder: name an encoder alone.")
    if type(config) not in getattr(transformers, head)._model_mapping:
        raise UserError(
            f"{folder} is of the family {config.model_type}, for which transformers has no {head}: "
            "name another encoder."
        )
    return config


def _check_tokenizer(folder: Path, tokenizer: Any, config: Any) -> Any:
    """Yield doubts about a tokenizer; refuse ids that the model lacks."""
    ids = tokenizer.get_vocab()
    highest = max(ids, key=ids.__getitem__)
    if ids[highest] >= config.vocab_size:
        raise UserError(
            f"The tokenizer of {folder} has the id {ids[highest]} ({highest!r}), but the model has "
            f"{config.vocab_size} tokens: put the model's own tokenizer there."
        )
    if len(ids) < _FEW * config.vocab_size:
        yield (
            f"the tokenizer of {folder} has {len(ids)} tokens, the model {config.vocab_size}: "
            "make sure that they belong together"
        )
    padding = getattr(config, "pad_token_id", None)
    if padding is not None and padding != tokenizer.pad_token_id:
        yield (
            f"the tokenizer of {folder} pads with {tokenizer.pad_token_id}, the model with "
            f"{padding}: make sure that they belong together"
        )


def _longest(folder: Path, tokenizer: Any, config: Any) -> tuple[int, str]:
    """Return how many tokens a model reads, and what limits it."""
    positions = int(getattr(config, "max_position_embeddings", 0) or 0)
    if _skips_padding(config):
        positions -= int(config.pad_token_id) + 1
    limits = [(positions, "its positions")] if positions > 0 else []
    limits.append((int(tokenizer.model_max_length), "its tokenizer's limit"))
    facts = folder / "stillhouse.json"
    if facts.is_file():
        reached = RunFacts.from_dict(read_json_object(facts)).trained_positions
        limits += [(reached, "positions that its training reached")] if reached else []
    return min(limits)


def _skips_padding(config: Any) -> bool:
    """Return whether positions are counted from behind the padding token's id, as in RoBERTa."""
    import transformers

    with torch.device("meta"):
        model: Any = transformers.AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    positions = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    return getattr(positions, "padding_idx", None) is not None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")


def _silence() -> None:
    """Keep transformers from reporting at each load that the head is new: it is meant to be."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
