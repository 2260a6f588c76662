"""Models by their names on the hub: weights are fetched only of those that can be used."""

from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.hub import DESCRIPTION, WEIGHTS, fetch
from data_prep.progress import log
from data_prep.tokenizers.json_files import read_json_object
from pretrain.model.foreign import files
from pretrain.model.foreign.config import check_encoder, from_hf_config, needs_transformers


def fetch_model(name: str) -> Path:
    """Return the folder of a repository of the hub: weights only of a model that can be used."""
    folder = fetch(name, DESCRIPTION)
    files.refuse_code(folder)
    config = files.find_config(folder)
    if config is None:
        raise UserError(f"{name} has no config.json on the hub, so it is no model: correct it.")
    _check_config(read_json_object(config), str(config))
    folder = fetch(name, WEIGHTS)
    if not files.find_weights(folder):
        raise UserError(
            f"{name} has no {files.WEIGHTS} on the hub: download it with `hf download {name} "
            "--local-dir FOLDER`, and name that folder to see how to convert its weights."
        )
    log(f"{name} is read from the hub's cache, revision {folder.name[:12]}")
    return folder


def _check_config(config: dict[str, Any], source: str) -> None:
    """Raise UserError for the config of a model that cannot be computed."""
    if needs_transformers(config, source):
        check_encoder(config, source)
    else:
        from_hf_config(config, source)
