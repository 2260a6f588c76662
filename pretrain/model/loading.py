"""Loading weights of a run's newest checkpoint, an export or a foreign model; safetensors only.

What plain transformers computes from a folder is what is computed here: a decoder of its own is
used where the file stores one, whatever `tie_word_embeddings` says, and so is the bias that the
decoder reads. Names and shapes are compared with `config.json` by the headers of the files, before
any tensor is allocated.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_prep.errors import UserError
from data_prep.hub import hub_name
from data_prep.tokenizers.json_files import read_json_object
from pretrain.checkpoint_manifest import FoundCheckpoint, find_newest
from pretrain.model.bert import Bert
from pretrain.model.config import BertShape
from pretrain.model.foreign.config import (
    FAMILIES,
    check_encoder,
    family_of,
    from_hf_config,
    needs_transformers,
    position_offset,
    size_of,
)
from pretrain.model.foreign.files import (
    WEIGHTS,
    find_config,
    find_weights,
    hash_weights,
    refuse_code,
)
from pretrain.model.foreign.hf_config import ForeignAttention
from pretrain.model.foreign.hf_encoder import HfEncoder
from pretrain.model.foreign.hf_loading import describe_folder, load_hf_encoder, stores_mlm_head
from pretrain.model.foreign.hub_models import fetch_model
from pretrain.model.foreign.names import DECODER
from pretrain.model.foreign.tensors import renamed, resolve_ties
from pretrain.run_facts import RunFacts
from pretrain.weights_file import StoredTensor, read_headers, read_tensors

__all__ = [
    "WEIGHTS",
    "LocatedModel",
    "TrainedModel",
    "load_encoder",
    "load_located",
    "load_trained",
    "locate",
]

_NSP_HEAD = "cls.seq_relationship.weight"
_MLM_HEAD = "cls.predictions."
_HEADS = ("cls.", "projections.")
_TRANSFORM = "cls.predictions.transform.dense.weight"
_ENCODER = "bert."
_LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")
_POSITIONS = "bert.embeddings.position_embeddings.weight"
_TYPES = "bert.embeddings.token_type_embeddings.weight"
_TOKEN_TYPES = 2
_POOLER = ("bert.pooler.dense.weight", "bert.pooler.dense.bias")


@dataclass(frozen=True, kw_only=True)
class LocatedModel:
    """Verified weights on disk, which every rank can load by itself.

    Attributes:
        folder: of the run, export or foreign model.
        sha256: of the weights.
        shape: of the model.
        tensors: where each parameter is stored, by the name that it has here.
        facts: of the run that made them; None for a model from elsewhere.
        has_mlm_head: whether the files hold one.
        position_offset: stored position embeddings in front of that of the first token.
        foreign: of a model that only transformers computes, see foreign/hf_encoder.py; its
            `shape` is what a student takes over.
    """

    folder: Path
    sha256: str
    shape: BertShape
    tensors: Mapping[str, StoredTensor]
    facts: RunFacts | None
    has_mlm_head: bool = True
    position_offset: int = 0
    foreign: ForeignAttention | None = None

    @property
    def unread(self) -> list[str]:
        """Stored tensors that are not part of the model, such as the head of a classifier."""
        return [name for name in self.tensors if not name.startswith((_ENCODER, *_HEADS))]

    @property
    def trained_positions(self) -> int:
        """Positions that its training reached: all of a model from elsewhere."""
        if self.facts is None:
            return self.shape.positions
        # Of an older student, the rows are known, but not what it took over from its teacher.
        reached = self.facts.trained_positions or self.facts.longest_row or self.shape.positions
        return min(reached, self.shape.positions)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model with its weights, and the facts of the run that trained it."""

    model: Bert
    facts: RunFacts | None
    source: Path


def load_trained(path: Path) -> TrainedModel:
    """Load a model with an MLM head.

    Args:
        path: of a run folder, an export, or a foreign model.

    Raises:
        UserError: when it is none of these, its weights do not fit its shape, or it has no MLM
            head.
    """
    located = locate(path)
    if not located.has_mlm_head:
        raise UserError(f"{path} has no MLM head: name a model that has one.")
    return load_located(located)


def locate(path: Path) -> LocatedModel:
    """Find and verify the weights of a run, an export, a foreign model, or one of the hub.

    Args:
        path: of a folder, or the name of a repository of the hub, such as
            google-bert/bert-base-uncased.

    Raises:
        UserError: when it is none of these, or its weights do not fit its shape.
    """
    if (path / "checkpoints").is_dir() and (found := find_newest(path / "checkpoints")):
        return _locate_run(path, found)
    folder = fetch_model(name) if (name := hub_name(path)) else path
    if folder.is_dir():
        refuse_code(folder)
        config, files = find_config(folder), find_weights(folder)
        if config and files:
            return _locate_foreign(folder, config, files)
    raise UserError(
        f"{path} is neither a run folder with a checkpoint nor an exported model "
        f"(config.json and {WEIGHTS}): train the model first, or correct the path."
    )


def load_located(located: LocatedModel) -> TrainedModel:
    """Load weights into a model, in fp32 on the CPU.

    A missing MLM head is set to zero.

    Raises:
        UserError: when they do not fit the shape, cannot be read, or are quantised; and for a
            model that only transformers computes.
    """
    if located.foreign is not None:
        raise UserError(
            f"{located.folder} is a model of type {located.foreign.model_type} that only "
            "transformers computes: it can teach and be compared, but not be trained or copied; "
            "name a BERT."
        )
    _check_fit(located)
    model = Bert(located.shape)
    state = model.state_dict()
    stored = {name: located.tensors[name] for name in state if name in located.tensors}
    for name, tensor in read_tensors(stored):
        state[name].copy_(_adjusted(name, tensor, located.position_offset))
    for name in state.keys() - stored.keys():
        state[name].zero_()  # of the MLM head: that all others are stored was checked
    return TrainedModel(model=model, facts=located.facts, source=located.folder)


def load_encoder(located: LocatedModel) -> Bert | HfEncoder:
    """Load weights into a model for forward passes without gradients, in fp32 on the CPU.

    Raises:
        UserError: when they do not fit the shape, cannot be read, or are quantised.
    """
    if located.foreign is None:
        return load_located(located).model
    model_type = located.foreign.model_type
    return load_hf_encoder(located.folder, model_type, located.shape, located.has_mlm_head)


def _locate_run(path: Path, found: FoundCheckpoint) -> LocatedModel:
    weights = found.path / WEIGHTS
    return LocatedModel(
        folder=path,
        sha256=found.files[WEIGHTS]["sha256"],
        shape=BertShape(**found.facts.shape),
        tensors=read_headers((weights,)),
        facts=found.facts,
        # Of a run it is always stored, trained or not.
        has_mlm_head=found.facts.has_mlm_head,
    )


def _locate_foreign(path: Path, config_path: Path, files: tuple[Path, ...]) -> LocatedModel:
    config, source = read_json_object(config_path), str(config_path)
    if needs_transformers(config, source):
        return _locate_hf(path, config, source, files)
    tensors = renamed(read_headers(files), files[0])
    shape, family = from_hf_config(config, source), FAMILIES[family_of(config, source)]
    is_tied = config.get("tie_word_embeddings", True) is not False
    # Without a decoder of its own, one that is not tied is random.
    has_mlm_head = family.has_mlm_head and _TRANSFORM in tensors and (is_tied or DECODER in tensors)
    tensors = resolve_ties(tensors, is_tied)
    located = LocatedModel(
        folder=path,
        sha256=hash_weights(files),
        shape=dataclasses.replace(
            shape,
            # A file may hold an NSP head that its config.json does not name.
            next_sentence=_NSP_HEAD in tensors,
            pooler=_NSP_HEAD not in tensors and all(name in tensors for name in _POOLER),
            tied_decoder=not (has_mlm_head and DECODER in tensors),
        ),
        tensors=tensors,
        facts=_read_facts(path / "stillhouse.json"),
        has_mlm_head=has_mlm_head,
        position_offset=position_offset(config, source),
    )
    _check_fit(located)
    return located


def _locate_hf(
    path: Path, config: dict[str, Any], source: str, files: tuple[Path, ...]
) -> LocatedModel:
    """Describe a model that only transformers computes."""
    check_encoder(config, source)
    model_type, headers = family_of(config, source), read_headers(files)
    layers = size_of(config, "num_hidden_layers", source)
    shape, attention = describe_folder(path, model_type, layers, headers)
    return LocatedModel(
        folder=path,
        sha256=hash_weights(files),
        shape=shape,
        tensors={},  # transformers reads them
        facts=None,
        has_mlm_head=stores_mlm_head(model_type, config, headers),
        foreign=attention,
    )


def _read_facts(path: Path) -> RunFacts | None:
    return RunFacts.from_dict(read_json_object(path)) if path.is_file() else None


def _adjusted(name: str, stored: torch.Tensor, position_offset: int) -> torch.Tensor:
    """Return a stored tensor as the parameter here."""
    if name == _POSITIONS:
        return stored[position_offset:]
    if name == _TYPES:
        # Batches have the types 0 and 1; where a model has a single type, both are that one.
        return stored[:_TOKEN_TYPES] if len(stored) > 1 else stored.expand(_TOKEN_TYPES, -1)
    return stored


def _check_fit(located: LocatedModel) -> None:
    """Compare the names and shapes of stored tensors with those of a model of the shape."""
    layers = {match[1] for name in located.tensors if (match := _LAYER.match(name))}
    # Before a model of the shape is made, even one without storage.
    if len(layers) != located.shape.layers:
        raise UserError(
            f"{located.folder} has weights of {len(layers)} layers, but states "
            f"{located.shape.layers}: they are not of one model; fetch both again."
        )
    expected = _expected_shapes(located)
    missing = expected.keys() - located.tensors.keys()
    surplus = {name for name in located.tensors if _is_surplus(name, located, expected)}
    if missing or surplus:
        raise UserError(
            f"The weights of {located.folder} do not fit its shape: {len(missing)} tensors are "
            f"missing and {len(surplus)} are unknown, such as {min(missing or surplus)!r}: "
            "fetch its weights and config.json again, from one model."
        )
    for name, shape in expected.items():
        stored = located.tensors[name].shape
        if stored != shape and not _is_type_table(name, stored, shape):
            raise UserError(
                f"The weights of {located.folder} do not fit its shape: {name} is {list(stored)}, "
                f"but it should be {list(shape)}: fetch its weights and config.json again, from "
                "one model."
            )


def _expected_shapes(located: LocatedModel) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that must be stored."""
    with torch.device("meta"):
        state = Bert(located.shape).state_dict()
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in state.items()
        if located.has_mlm_head or not name.startswith(_MLM_HEAD)
    }
    positions, width = shapes[_POSITIONS]
    return shapes | {_POSITIONS: (positions + located.position_offset, width)}


def _is_type_table(name: str, stored: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Tell whether a table of token types has any number of rows, see `_adjusted`."""
    return name == _TYPES and len(stored) == len(shape) and stored[0] > 0 and stored[1] == shape[1]


def _is_surplus(name: str, located: LocatedModel, expected: Mapping[str, object]) -> bool:
    """Tell whether a stored tensor should not be there.

    Those that are left unread: the head of another task, a part of a pooler, buffers that older
    versions of transformers saved, and a student's projections to its teacher's width.
    """
    if name in expected or name in _POOLER or name.endswith(".position_ids"):
        return False
    return name.startswith(_ENCODER) or (located.has_mlm_head and name.startswith(_MLM_HEAD))
