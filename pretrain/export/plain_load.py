"""Uses an export as a colleague would: plain transformers in a fresh process.

    python -P pretrain/export/plain_load.py FOLDER [NAME]

It imports nothing of this project, so that it runs in any environment that has transformers. NAME
is what the model card calls the folder. The exit code is 1, and the last line printed says why,
when a class of transformers cannot load the folder or does not take what its tokenizer gives.
"""

import contextlib
import gc
import inspect
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

# Those that BERT, DistilBERT and Megatron-BERT have, by what the inputs are.
_ENCODER = "AutoModel"
_PRETRAINED = (
    "AutoModelForMaskedLM",
    "AutoModelForPreTraining",
    "AutoModelForNextSentencePrediction",
)
_FINE_TUNED = (
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForMultipleChoice",
)
_NEEDS_NSP_HEAD = ("AutoModelForPreTraining", "AutoModelForNextSentencePrediction")
# Parts of the names of what fine-tuning adds.
_NEW_HEADS = ("classifier", "qa_outputs")
_POOLER = "pooler.dense"


def main(folder: Path, name: str) -> None:
    """Run every check; exit with 1 at the first that fails."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)  # of new heads
    with _stating("AutoConfig"):
        config = transformers.AutoConfig.from_pretrained(folder)
    with _stating("AutoTokenizer"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        _check_tokenizer(tokenizer, folder, config.max_position_embeddings)
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        stored = set(file.keys())
    is_encoder_alone = config.architectures[0].endswith("Model")
    for kind in (_ENCODER, *_PRETRAINED, *_FINE_TUNED):
        auto = getattr(transformers, kind)
        if type(config) not in auto._model_mapping:
            continue
        if kind in _PRETRAINED and is_encoder_alone:
            continue
        if kind in _NEEDS_NSP_HEAD and "cls.seq_relationship.weight" not in stored:
            continue
        with _stating(kind):
            _check_class(auto, kind, folder, tokenizer, stored)
        gc.collect()
    with _stating("a text longer than its positions"):
        _check_long_text(folder, tokenizer)
    with _stating("the example of its card"):
        _run_examples(folder, name)


def _check_tokenizer(tokenizer: Any, folder: Path, positions: int) -> None:
    stated = tokenizer.model_max_length
    _expect(stated == positions, f"model_max_length is {stated}, but it has {positions} positions")
    # transformers switches both off for each call, but other programs read the file as it is.
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for setting in ("truncation", "padding"):
        _expect(content.get(setting) is None, f"tokenizer.json has {setting} switched on")
    found = len(tokenizer(_long_text(tokenizer, positions), truncation=True)["input_ids"])
    _expect(found == positions, f"truncation gives {found} tokens for {positions} positions")


def _check_class(auto: Any, kind: str, folder: Path, tokenizer: Any, stored: set[str]) -> None:
    """Load a class, and run a padded batch of the tokenizer's own output through it."""
    model, loading = auto.from_pretrained(folder, output_loading_info=True)
    missing = _unexplained(loading["missing_keys"], kind, stored)
    _expect(not missing, f"its weights lack {', '.join(missing)}")
    _expect(not loading["mismatched_keys"], "weights have another shape than config.json says")
    inputs = _inputs(tokenizer, pairs=kind == "AutoModelForNextSentencePrediction")
    # Some versions ignore inputs that the model does not have, others refuse them.
    unknown = set(inputs) - set(inspect.signature(model.forward).parameters)
    _expect(
        not unknown, f"its tokenizer gives {', '.join(sorted(unknown))}, which it does not take"
    )
    if kind == "AutoModelForMultipleChoice":
        inputs = {key: value[None] for key, value in inputs.items()}
    with torch.no_grad():
        outputs = model.eval()(**inputs)
    tensors = [value for value in outputs.to_tuple() if isinstance(value, torch.Tensor)]
    _expect(all(bool(value.isfinite().all()) for value in tensors), "its outputs are not finite")
    if kind == _ENCODER:
        _check_pooler(auto, model, outputs, folder, inputs, stored)


def _unexplained(missing: list[str], kind: str, stored: set[str]) -> list[str]:
    """Return the weights that are drawn anew at loading although nothing new is expected."""
    new = () if kind in _PRETRAINED else _NEW_HEADS if kind in _FINE_TUNED else ()
    if kind not in _PRETRAINED and not _has_pooler(stored):
        new = (*new, _POOLER)
    return sorted(name for name in missing if not any(part in name for part in new))


def _check_pooler(
    auto: Any, model: Any, outputs: Any, folder: Path, inputs: dict[str, Any], stored: set[str]
) -> None:
    """A trained pooler is the same in every load; without one, the encoder loads without one."""
    if _has_pooler(stored):
        with torch.no_grad():
            again = auto.from_pretrained(folder).eval()(**inputs).pooler_output
        _expect(torch.equal(again, outputs.pooler_output), "another load has another pooler")
    elif "add_pooling_layer" in inspect.signature(type(model).__init__).parameters:
        _, loading = auto.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
        missing = sorted(loading["missing_keys"])
        _expect(not missing, f"without a pooler its weights lack {', '.join(missing)}")


def _check_long_text(folder: Path, tokenizer: Any) -> None:
    model = transformers.AutoModel.from_pretrained(folder).eval()
    positions = model.config.max_position_embeddings
    text = _long_text(tokenizer, positions)
    inputs = tokenizer(text, truncation=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    _expect(hidden.shape[1] == positions and bool(hidden.isfinite().all()), "it gives no output")


def _run_examples(folder: Path, name: str) -> None:
    """Run the Python of the model card beside a folder of the name that it uses."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    _expect(bool(examples), "it has none")
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        link = Path(scratch) / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder.resolve(), target_is_directory=True)
        os.chdir(scratch)
        try:
            for example in examples:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(example, "README.md", "exec"), {"__name__": "example"})
        finally:
            os.chdir(before)


def _inputs(tokenizer: Any, pairs: bool) -> dict[str, Any]:
    """Return a padded batch of two texts of different lengths, or of two pairs."""
    short, long = tokenizer.mask_token, " ".join([tokenizer.mask_token] * 5)
    second = [long, short] if pairs else None
    batch = tokenizer([short, long], second, padding=True, truncation=True, return_tensors="pt")
    return dict(batch)


def _long_text(tokenizer: Any, positions: int) -> str:
    """Return a text of more tokens than there are positions, in any language."""
    return " ".join([tokenizer.mask_token] * (positions + 1))


def _has_pooler(stored: set[str]) -> bool:
    return any(_POOLER in name for name in stored)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


@contextlib.contextmanager
def _stating(what: str) -> Iterator[None]:
    """Turn any failure into one line on standard output and exit code 1."""
    try:
        yield
    # Whatever the library raises is a reason not to publish.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = (
            lines[0] if isinstance(error, ValueError) else f"{type(error).__name__}: {lines[0]}"
        )
        print(f"{what}: {reason}")
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else Path(sys.argv[1]).name)
