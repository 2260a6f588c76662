"""Publishing: export a run as a plain Hugging Face folder, independent of this project.

Parameters have the names of transformers already, so the export is a copy with tied weights stored
once. It is refused unless plain transformers computes the same logits from the folder.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from data_prep.disk import clear_disk_errors
from data_prep.errors import UserError
from data_prep.manifest import describe_files, find_damage, write_json
from data_prep.tokenizers.folder import load_tokenizer
from pretrain.data.batch import Batch
from pretrain.data.dummy_batch import dummy_batch
from pretrain.export.baseline import warn_below_baseline
from pretrain.export.hf_loading import load_plain
from pretrain.export.model_card import card_name, write_card
from pretrain.export.positions import with_positions
from pretrain.model import Bert, Outputs
from pretrain.model.hf_conversion import to_hf_config, to_hf_name
from pretrain.model.loading import WEIGHTS, TrainedModel, load_trained
from pretrain.weights_file import write_weights

FACTS = "stillhouse.json"
# fp32 sums in another order differ by about 1e-6 at logits of about 10; a wrong weight by 1.
_TOLERANCE = 1e-4
_ALLOWED = {".safetensors", ".json", ".txt", ".md"}


def publish(
    run_path: Path,
    export: Path,
    license_name: str,
    language: str,
    *,
    positions: int | None = None,
) -> bool:
    """Export the newest checkpoint of a run; replace an older export of ours.

    A warning on stderr names a model whose predictions are no better than one constant prediction.

    Args:
        run_path: of a teacher or a student.
        export: the folder.
        license_name: as the model hub writes it, such as `apache-2.0`.
        language: as an ISO 639-1 code.
        positions: longest input of the export; None is the model's.

    Returns:
        False when the folder was already up to date.

    Raises:
        UserError: when the run has no checkpoint, or positions that it has not trained, the folder
            holds something else, or plain transformers does not compute the same logits.
    """
    trained = load_trained(run_path)
    if trained.facts is None:
        raise UserError(f"{run_path} is not a run folder of ours: only a run can be published.")
    trained = with_positions(trained, positions, run_path)
    assert trained.facts is not None
    if warning := warn_below_baseline(trained.facts, run_path / "tokenizer"):
        print(f"warning: {run_path}: {warning}", file=sys.stderr)
    stated = {**trained.facts.to_dict(), "license": license_name, "language": language}
    if _is_current(export, stated):
        return False
    building = export.with_name(export.name + ".partial")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        with clear_disk_errors(export):
            _write(building, trained, trained.facts.tokenizer, run_path)
            card = write_card(trained.facts, card_name(export), license_name, language)
            (building / "README.md").write_text(card, encoding="utf-8")
            check_export(building, trained.model)
            names = [path.name for path in building.iterdir()]
            write_json(building / FACTS, {**stated, "files": describe_files(building, names)})
            _replace(building, export)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return True


def check_export(folder: Path, model: Bert) -> None:
    """Refuse a folder that holds a pickle, or from which transformers computes other logits."""
    for path in folder.iterdir():
        if path.suffix not in _ALLOWED:
            raise UserError(f"The export would hold {path.name}, which is not safe to publish.")
    batch = dummy_batch(model.shape.vocab_size, rows=2, row_tokens=16)
    model.eval()
    with torch.no_grad():
        ours: Outputs = model(batch)
    for name, difference in _compare(folder, model, ours, batch).items():
        if not difference < _TOLERANCE:
            raise UserError(
                f"Plain transformers computes other {name} outputs from the export (by up to "
                f"{difference:.2g}), so it was not published: report this with config.yaml."
            )


def _write(building: Path, trained: TrainedModel, fingerprint: str, run_path: Path) -> None:
    shape = trained.model.shape
    weights = {
        to_hf_name(name, shape): tensor.contiguous()
        for name, tensor in trained.model.state_dict().items()
    }
    write_weights(weights, building / WEIGHTS, metadata={"format": "pt"})
    write_json(building / "config.json", to_hf_config(shape))
    tokenizer = load_tokenizer(run_path / "tokenizer")
    if not tokenizer.is_recorded_as(fingerprint):
        raise UserError(
            f"The tokenizer in {run_path} is {tokenizer.fingerprint}, but the model was trained "
            f"with {fingerprint}: restore the run folder."
        )
    for path in tokenizer.path.iterdir():
        if path.name != "manifest.json":
            shutil.copyfile(path, building / path.name)


def _compare(folder: Path, model: Bert, ours: Outputs, batch: Batch) -> dict[str, float]:
    """Return the largest difference of each kind of output from plain transformers'."""
    inputs = {
        "input_ids": batch.input_ids.view(-1, batch.row_tokens),
    }
    if model.shape.token_types:
        inputs["token_type_ids"] = batch.token_types.view(-1, batch.row_tokens)
    with torch.no_grad():
        plain = load_plain(folder, "AutoModelForMaskedLM")(**inputs).logits
        differences = {"MLM": _largest(plain.flatten(0, 1), ours.mlm_logits_MV)}
        if ours.nsp_logits_S2 is not None:
            both = load_plain(folder, "AutoModelForPreTraining")(**inputs)
            difference = _largest(both.prediction_logits.flatten(0, 1), ours.mlm_logits_MV)
            differences["MLM"] = max(differences["MLM"], difference)
            differences["NSP"] = _largest(both.seq_relationship_logits, ours.nsp_logits_S2)
        if model.shape.has_pooler:
            pooled = load_plain(folder, "AutoModel")(**inputs).pooler_output
            cls_SD = ours.hidden_ND.index_select(0, batch.cls_positions)
            differences["pooler"] = _largest(pooled, model.bert.pooler(cls_SD))
    return differences


def _largest(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    return float((theirs - ours).abs().max())


def _is_current(export: Path, stated: dict[str, Any]) -> bool:
    path = export / FACTS
    if not path.is_file():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    # Compared in the form of JSON, where tuples are lists.
    same = found == {**json.loads(json.dumps(stated)), "files": found["files"]}
    return same and find_damage(export, found, hashes=True) is None


def _replace(building: Path, export: Path) -> None:
    if export.exists():
        if not (export / FACTS).is_file():
            raise UserError(
                f"{export} exists and is not an export of ours: remove it, or choose another."
            )
        # Moved aside first: a kill in between must not lose the earlier export.
        replaced = export.with_name(export.name + ".replaced.partial")
        shutil.rmtree(replaced, ignore_errors=True)
        export.rename(replaced)
        building.rename(export)
        shutil.rmtree(replaced)
    else:
        building.rename(export)
