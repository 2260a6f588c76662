"""The files of a model folder: which hold its weights, and which are refused.

Only safetensors are read. Pickled weights can run code when they are opened, and so can the Python
files that some models bring along: neither is ever opened.
"""

import re
from pathlib import Path

from data_prep.errors import UserError
from data_prep.manifest import file_sha256, fingerprint
from data_prep.tokenizers.json_files import read_json_object

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_OLD_CONFIG = "bert_config.json"  # of google-research/bert and pytorch-pretrained-bert
_TOKENIZER_CONFIG = "tokenizer_config.json"
_ADAPTER = "adapter_config.json"
_TORCH = "pytorch_model"
_PICKLES = re.compile(r"(pytorch_)?model.*\.(bin|pt|pth)")
_OTHER_FRAMEWORKS = re.compile(r"(tf_model.*\.h5|flax_model.*\.msgpack|.*\.ckpt.*\.index)")
# Copies tensor by tensor: loading and saving the model would add random heads where it has none.
_CONVERT = (
    "python -c \"import glob, torch; from safetensors.torch import save_file; w = {{}}; "
    "[w.update(torch.load(f, map_location='cpu', weights_only=True)) for f in "
    "glob.glob('{pattern}')]; save_file({{k: v.clone().contiguous() for k, v in w.items()}}, "
    "'{target}', {{'format': 'pt'}})\""
)  # fmt: skip


def find_config(folder: Path) -> Path | None:
    """Return the file that describes a model, or None where there is none."""
    for name in (CONFIG, _OLD_CONFIG):
        if (folder / name).is_file():
            return folder / name
    return None


def find_weights(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files of a model, all shards of it; empty where there are none.

    Raises:
        UserError: for a missing shard, an index that is not one, or weights in other formats alone.
    """
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if (folder / INDEX).is_file():
        return _shards(folder)
    _refuse_other_formats(folder)
    return ()


def hash_weights(files: tuple[Path, ...]) -> str:
    """Return the sha256 of a file, or a fingerprint of those of all shards."""
    if len(files) == 1:
        return file_sha256(files[0])
    return fingerprint({path.name: file_sha256(path) for path in files})


def refuse_code(folder: Path) -> None:
    """Raise UserError for a folder whose model or tokenizer would run code of its own."""
    if scripts := sorted(folder.glob("*.py")):
        raise UserError(
            f"{folder} brings code of its own, {scripts[0].name}, which is never run: name a model "
            "of a family that transformers has, or remove the file if the model does without it."
        )
    for name in (CONFIG, _TOKENIZER_CONFIG):
        if (folder / name).is_file() and read_json_object(folder / name).get("auto_map"):
            raise UserError(
                f"{folder / name} has auto_map, which names code of its own to run; it is never "
                "run: name a model of a family that transformers has, or remove auto_map if the "
                "model does without it."
            )


def _shards(folder: Path) -> tuple[Path, ...]:
    index = folder / INDEX
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index} has no weight_map, so its shards are unknown: fetch it again.")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        # A name with folders in it could lead out of the model's folder.
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(
                f"{index} names the shard {name!r}: only safetensors files beside it are read."
            )
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(
            f"{folder} lacks {', '.join(missing[:3])}, {len(missing)} of the {len(names)} shards "
            f"that {INDEX} names: fetch the model again."
        )
    return tuple(folder / name for name in names)


def _refuse_other_formats(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    if pickles := [name for name in names if _PICKLES.fullmatch(name)]:
        several = sum(name.startswith(_TORCH) for name in pickles) > 1
        pattern = f"{_TORCH}*.bin" if several else pickles[-1]
        raise UserError(
            f"{folder} has its weights in {pickles[-1]}, not in {WEIGHTS}: pickled weights are not "
            "read, because they can run code; if you trust the file, convert it with "
            + _CONVERT.format(pattern=folder / pattern, target=folder / WEIGHTS)
        )
    if others := [name for name in names if _OTHER_FRAMEWORKS.fullmatch(name)]:
        raise UserError(
            f"{folder} has its weights in {others[0]}, not in {WEIGHTS}: only safetensors are "
            "read; convert it with transformers 4, as in BertForPreTraining.from_pretrained("
            "FOLDER, from_tf=True).save_pretrained(NEW), with from_flax=True for Flax."
        )
    if _ADAPTER in names:
        raise UserError(
            f"{folder} is an adapter of another model: merge them with merge_and_unload() of peft, "
            "save the result, and name that."
        )
