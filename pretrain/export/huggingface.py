"""Publishing: export a run as a plain Hugging Face folder, independent of this project.

Parameters have the names of transformers already, so the export is a copy with tied weights stored
once. It is refused unless plain transformers computes the same logits from the folder, and unless a
fresh process can use it with every class that its format supports.
"""

import shutil
import sys
from pathlib import Path

from data_prep.disk import clear_disk_errors
from data_prep.errors import UserError
from data_prep.manifest import describe_files, write_json
from data_prep.tokenizers.folder import load_tokenizer
from pretrain.export.baseline import warn_below_baseline
from pretrain.export.card.languages import language_of_run
from pretrain.export.card.model_card import CardOptions, write_card
from pretrain.export.fresh_process import check_in_fresh_process
from pretrain.export.parity import check_parity
from pretrain.export.positions import with_positions
from pretrain.export.target import (
    FACTS,
    check_target,
    export_name,
    is_current,
    replace_export,
)
from pretrain.export.tokenizer_files import TOKENIZER_FILES, write_tokenizer_files
from pretrain.model.hf_conversion import HEADS, to_hf_config, to_hf_name
from pretrain.model.loading import WEIGHTS, TrainedModel, load_located, locate
from pretrain.weights_file import write_weights

_CONFIG, _CARD = "config.json", "README.md"
# Nothing else is published, whatever the folders of the run hold.
PUBLISHED = (_CONFIG, WEIGHTS, *TOKENIZER_FILES, _CARD, FACTS)


def publish(
    run_path: Path,
    export: Path,
    license_name: str = "other",
    language: str | None = None,
    *,
    repository: str | None = None,
    positions: int | None = None,
) -> bool:
    """Export the newest checkpoint of a run; replace an older export of ours.

    A warning on stderr names a model whose predictions are no better than one constant prediction.

    Args:
        run_path: of a teacher or a student.
        export: the folder; a link is followed.
        license_name: as the model hub writes it, such as `apache-2.0`.
        language: ISO 639 codes, separated by commas, "" for none; None is that of the corpus.
        repository: name on the model hub, for the example of the card; None is the folder's name.
        positions: longest input of the export; None is the model's.

    Returns:
        False when the folder was already up to date.

    Raises:
        UserError: when the run has no checkpoint, or positions that it has not trained, the folder
            cannot be made or holds something else, or plain transformers cannot use it or does not
            compute the same logits.
    """
    check_target(run_path, export)
    trained = load_located(locate(run_path))
    if trained.facts is None:
        raise UserError(f"{run_path} is not a run folder of ours: only a run can be published.")
    trained = with_positions(trained, positions, run_path)
    assert trained.facts is not None
    if not trained.facts.has_mlm_head:
        print(f"{run_path} has no trained MLM head: it is published as an encoder alone.")
    if warning := warn_below_baseline(trained.facts, run_path / "tokenizer"):
        print(f"warning: {run_path}: {warning}", file=sys.stderr)
    if language is None:
        language = language_of_run(trained.facts, run_path) or ""
    name, export = export_name(export), export.resolve()
    stated = {
        **trained.facts.to_dict(),
        "license": license_name,
        "language": language,
        "repository": repository,
    }
    if is_current(export, stated):
        return False
    building = export.with_name(export.name + ".partial")
    shutil.rmtree(building, ignore_errors=True)
    with clear_disk_errors(export):
        building.mkdir(parents=True)
    try:
        with clear_disk_errors(export):
            card = CardOptions(
                name=name,
                location=repository or name,
                license=license_name,
                languages=tuple(language.split(",")) if language else (),
            )
            _write(building, trained, run_path, card)
            check_export(building, trained, card.location)
            names = [path.name for path in building.iterdir()]
            write_json(building / FACTS, {**stated, "files": describe_files(building, names)})
            replace_export(building, export)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return True


def check_export(folder: Path, trained: TrainedModel, location: str) -> None:
    """Refuse a folder that plain transformers cannot use, or from which it computes other logits.

    Raises:
        UserError: saying what fails, or naming a file that is not among those to publish.
    """
    for path in folder.iterdir():
        if path.name not in PUBLISHED or path.is_symlink():
            raise UserError(f"The export would hold {path.name}, which is not safe to publish.")
    assert trained.facts is not None
    check_parity(folder, trained.model, trained.facts.has_mlm_head)
    check_in_fresh_process(folder, location)


def _write(building: Path, trained: TrainedModel, run_path: Path, card: CardOptions) -> None:
    shape, facts = trained.model.shape, trained.facts
    assert facts is not None  # it is a run, which `publish` has checked
    weights = {
        to_hf_name(name, shape): tensor.contiguous()
        for name, tensor in trained.model.state_dict().items()
        if facts.has_mlm_head or not name.startswith(HEADS)
    }
    write_weights(weights, building / WEIGHTS, metadata={"format": "pt"})
    write_json(building / _CONFIG, to_hf_config(shape, facts.has_mlm_head))
    tokenizer = load_tokenizer(run_path / "tokenizer")
    if not tokenizer.is_recorded_as(facts.tokenizer):
        raise UserError(
            f"The tokenizer in {run_path} is {tokenizer.fingerprint}, but the model was trained "
            f"with {facts.tokenizer}: restore the run folder."
        )
    write_tokenizer_files(tokenizer, building, shape)
    mask_token = tokenizer.backend.id_to_token(tokenizer.mask_id)
    assert mask_token is not None  # a loaded tokenizer has a token for every role
    text = write_card(facts, shape, card, mask_token)
    (building / _CARD).write_text(text, encoding="utf-8")
