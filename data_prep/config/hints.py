"""The key that was probably meant: the same name in another group, a familiar word, a near one."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from data_prep.config.keys import Model, dotted_keys, element_models_at, fields_at, models_at

_NEAR = 0.6  # how alike a name must be to be suggested
_NEAR_PATHS = 0.75  # long dotted ones share much that matters little
_FEW, _MANY = 4, 12

# Names of other libraries, and ours: a key, or the end of one.
_FAMILIAR = {
    "activation_checkpointing": "activation_checkpointing",
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "adam_epsilon": "epsilon",
    "batch": "batch_rows",
    "batch_size": "batch_rows",
    "bf16": "precision",
    "data": "corpus.path",
    "data_dir": "corpus.path",
    "dtype": "precision",
    "epochs": "train.steps",
    "eps": "epsilon",
    "eval_steps": "validation.every_steps",
    "fp16": "precision",
    "global_batch_size": "batch_rows",
    "grad_clip": "clip_norm",
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_clipping": "clip_norm",
    "hidden_size": "width",
    "intermediate_size": "feed_forward",
    "iterations": "train.steps",
    "learning_rate": "optim.lr",
    "logging_steps": "log.every_steps",
    "loss": "objectives",
    "losses": "objectives",
    "masking_rate": "mask.rate",
    "max_grad_norm": "clip_norm",
    "max_length": "row_tokens",
    "max_position_embeddings": "positions",
    "max_seq_length": "row_tokens",
    "max_steps": "train.steps",
    "micro_batch_size": "micro_rows",
    "mlm_probability": "mask.rate",
    "num_attention_heads": "heads",
    "num_hidden_layers": "layers",
    "num_layers": "layers",
    "num_train_epochs": "train.steps",
    "num_workers": "workers",
    "optimizer": "optim.name",
    "output_dir": "run.path",
    "per_device_train_batch_size": "micro_rows",
    "save_steps": "checkpoint.every_steps",
    "save_total_limit": "checkpoint.keep",
    "seq_len": "row_tokens",
    "seq_length": "row_tokens",
    "sequence_length": "row_tokens",
    "train_batch_size": "batch_rows",
    "train_micro_batch_size_per_gpu": "micro_rows",
    "vocabulary_size": "vocab_size",
    "warmup": "warmup_steps",
    "warmup_ratio": "warmup_steps",
}


def hint_for_key(kind: Model, key: str, loc: Sequence[Any]) -> str:
    """Return the end of a sentence about an unknown key of a recipe.

    Args:
        kind: of the recipe.
        key: as it stands in the file.
        loc: of it, by pydantic: with indices and kinds of elements.
    """
    if any(isinstance(part, int) for part in loc):
        models = element_models_at(kind, loc[:-1], skip_unknown=True)
        names = [name for model in models for name in model.model_fields]
        return nearest(str(loc[-1]), list(dict.fromkeys(names)), "keys")
    known = list(dotted_keys(kind))
    leaf, (group, _, last) = str(loc[-1]), key.rpartition(".")
    if fields_at(kind, leaf.split(".")) and "." in leaf:
        above, _, own = leaf.rpartition(".")
        return (
            f"dotted keys are for the command line, so write {above}: and, indented below, {own}:."
        )
    if group and leaf in kind.model_fields:
        return f"{leaf!r} stands at the top level, not inside {group!r}."
    return (
        _elsewhere(last, known)
        or _elsewhere(_FAMILIAR.get(last, ""), known)
        or _elsewhere(last, list(_keys_in_lists(kind)))
        or _nearest_key(kind, key, known)
    )


def nearest(given: str, names: Sequence[str], what: str) -> str:
    """Return the question whether the most similar name was meant, or the list of all names."""
    near = difflib.get_close_matches(given, names, n=1, cutoff=_NEAR)
    return f"did you mean {near[0]!r}?" if near else f"known {what} are {', '.join(names)}."


def _elsewhere(name: str, known: Sequence[str]) -> str:
    """Return the question whether the keys that end in a name were meant, empty without any."""
    ends = [repr(key) for key in known if name and (key == name or key.endswith(f".{name}"))]
    ends = list(dict.fromkeys(ends))
    if not ends or len(ends) > _FEW:
        return ""
    *others, last = ends
    return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"


def _nearest_key(kind: Model, key: str, known: Sequence[str]) -> str:
    group, _, leaf = key.rpartition(".")
    siblings = _names_in(kind, group)
    near = difflib.get_close_matches(leaf, siblings, n=1, cutoff=_NEAR)
    if near:
        return f"did you mean {'.'.join(filter(None, (group, near[0])))!r}?"
    if near := difflib.get_close_matches(key, known, n=1, cutoff=_NEAR_PATHS):
        return f"did you mean {near[0]!r}?"
    leaves = {name.rpartition(".")[2]: name for name in reversed(known)}
    if near := difflib.get_close_matches(leaf, leaves, n=1, cutoff=_NEAR_PATHS):
        return f"did you mean {leaves[near[0]]!r}?"
    if group:
        return f"the keys of {group} are {', '.join(siblings)}."
    what = "keys" if len(siblings) <= _MANY or not siblings else "groups of keys"
    return f"known {what} are {', '.join(siblings)}; `--help all` describes them."


def _keys_in_lists(kind: Model) -> Iterator[str]:
    """Yield the keys of elements of lists, such as objectives.0.temperature."""
    for key in dotted_keys(kind):
        for model in element_models_at(kind, key.split(".")):
            yield from (f"{key}.0.{name}" for name in model.model_fields)


def _names_in(kind: Model, group: str) -> list[str]:
    parts = group.split(".") if group else []
    return [name for model in models_at(kind, parts) for name in model.model_fields]
