"""Loading weights from a run's newest checkpoint or an exported folder; safetensors only."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from data_prep.errors import UserError
from data_prep.manifest import file_sha256
from pretrain.checkpoint_manifest import find_newest
from pretrain.model.bert import Bert
from pretrain.model.config import BertShape
from pretrain.model.hf_conversion import from_hf_config, from_hf_name
from pretrain.run_facts import RunFacts

WEIGHTS = "model.safetensors"
_NSP_HEAD = "cls.seq_relationship.weight"
# Other programs may store the tied decoder a second time; it equals the word embeddings.
_TIED = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
_POOLER = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
_MLM_HEAD = "cls.predictions."
_PICKLES = ("pytorch_model.bin", "model.pt", "tf_model.h5", "flax_model.msgpack")


@dataclass(frozen=True, kw_only=True)
class LocatedModel:
    """Verified weights on disk, which every rank can load by itself."""

    weights: Path
    sha256: str
    shape: BertShape
    facts: RunFacts | None  # of the run that made them; None for a model from elsewhere
    has_mlm_head: bool = True

    @property
    def trained_positions(self) -> int:
        """Positions that its training reached: all of a model from elsewhere."""
        if self.facts is None:
            return self.shape.positions
        # Of an older student, the rows are known, but not what it took over from its teacher.
        return min(self.facts.trained_positions or self.facts.longest_row, self.shape.positions)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model with its weights, and the facts of the run that trained it."""

    model: Bert
    facts: RunFacts | None
    source: Path


def load_trained(path: Path) -> TrainedModel:
    """Load a model from a run folder or an export folder.

    Raises:
        UserError: when the folder is neither, its weights do not fit its shape, or it has no
            MLM head.
    """
    located = locate(path)
    if not located.has_mlm_head:
        raise UserError(f"{path} has no MLM head: name a model that has one.")
    return load_located(located)


def locate(path: Path) -> LocatedModel:
    """Find and verify the weights of a run folder or an export folder."""
    if (path / "checkpoints").is_dir() and (found := find_newest(path / "checkpoints")):
        return LocatedModel(
            weights=found.path / WEIGHTS,
            sha256=found.files[WEIGHTS]["sha256"],
            shape=BertShape(**found.facts.shape),
            facts=found.facts,
        )
    if (path / "config.json").is_file() and (path / WEIGHTS).is_file():
        return _locate_export(path)
    if pickled := [name for name in _PICKLES if (path / name).is_file()]:
        raise UserError(
            f"{path} has its weights in {pickled[0]}, not in {WEIGHTS}: pickled weights are not "
            "read, because they can run code; save the model as safetensors first."
        )
    raise UserError(
        f"{path} is neither a run folder with a checkpoint nor an exported model "
        f"(config.json and {WEIGHTS}): train the model first, or correct the path."
    )


def load_located(located: LocatedModel) -> TrainedModel:
    """Load weights into a model, in fp32 on the CPU, after comparing them with its shape.

    A missing MLM head is set to zero.
    """
    weights, model = _read_weights(located.weights), Bert(located.shape)
    expected = model.state_dict()
    if not located.has_mlm_head:
        absent = {name: torch.zeros_like(t) for name, t in expected.items() if _MLM_HEAD in name}
        weights = absent | weights
    _check_fit(located.weights, weights, expected)
    model.load_state_dict({name: weights[name].float() for name in expected})
    return TrainedModel(model=model, facts=located.facts, source=located.weights.parent)


def _locate_export(path: Path) -> LocatedModel:
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    shape = from_hf_config(config, source=str(path / "config.json"))
    names = {from_hf_name(name) for name in _names(path / WEIGHTS)}
    return LocatedModel(
        weights=path / WEIGHTS,
        sha256=file_sha256(path / WEIGHTS),
        # A file may hold an NSP head that its config.json does not name.
        shape=dataclasses.replace(
            shape,
            next_sentence=_NSP_HEAD in names,
            pooler=_NSP_HEAD not in names and names >= _POOLER,
        ),
        facts=_read_facts(path / "stillhouse.json"),
        has_mlm_head=any(name.startswith(_MLM_HEAD) for name in names),
    )


def _read_facts(path: Path) -> RunFacts | None:
    if not path.is_file():
        return None
    return RunFacts.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _check_fit(
    path: Path, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]
) -> None:
    spare = _TIED | (_POOLER - expected.keys())
    # Projections from a student's width to its teacher's are not part of the model.
    spare |= {name for name in found if name.startswith("projections.")}
    # Buffers that older versions of transformers saved.
    spare |= {name for name in found if name.endswith(".position_ids")}
    missing, surplus = expected.keys() - found.keys(), found.keys() - expected.keys() - spare
    if missing or surplus:
        raise UserError(
            f"The weights {path} do not fit their shape: {len(missing)} tensors are missing and "
            f"{len(surplus)} are unknown, such as {min(missing or surplus)!r}."
        )
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise UserError(
                f"The weights {path} do not fit their shape: {name} is {list(found[name].shape)}, "
                f"but it should be {list(tensor.shape)}."
            )


def _names(path: Path) -> set[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (OSError, SafetensorError) as error:
        raise UserError(f"The weights {path} cannot be read: {error}.") from error


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return {from_hf_name(name): tensor for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"The weights {path} cannot be read: {error}.") from error
