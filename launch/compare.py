"""Compare published models: size, held-out scores, speed, and a masked sentence filled in.

    python launch/compare.py export/teacher export/student --corpus runs/corpus

Everything is loaded through plain transformers but the scores, which use the fixed validation set.
"""

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

try:
    from launch.cli import run_command
except ImportError as error:
    raise SystemExit(f"{error}: install Stillhouse with `pip install -e .` first.") from error

from data_prep.errors import UserError
from launch.held_out import score_held_out

_SENTENCES = {
    "en": ("She opened the door and went into the [MASK].", "He did not say a [MASK]."),
    "zh": ("他是一位著名的[MASK]家。",),
}
_TIMED_ROWS, _TIMED_TOKENS, _ROUNDS = 8, 128, 15


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model in the table."""

    name: str
    parameters: int
    loss: float
    accuracy: float
    milliseconds: float


def main() -> None:
    """Print the fillings and the table."""
    arguments = _parser().parse_args()
    for path in arguments.models:
        if not (path / "config.json").is_file():
            raise UserError(f"{path} is not a published model: make it with publish_student.py.")
    for path in arguments.models:
        _print_fillings(path, _SENTENCES[arguments.language])
    times = time_models(arguments.models)
    print()
    print(f"{'model':28} {'parameters':>12} {'MLM loss':>9} {'accuracy':>9} {'ms a batch':>11}")
    for path, milliseconds in zip(arguments.models, times, strict=True):
        row = _measure(path, arguments.corpus, arguments.rows, milliseconds)
        print(
            f"{row.name:28} {row.parameters:12,} {row.loss:9.4f} {row.accuracy:9.2%} "
            f"{row.milliseconds:11.1f}"
        )
    print(f"(held-out masked words; a batch is {_TIMED_ROWS} rows of {_TIMED_TOKENS} tokens)")


def fill_mask(path: Path, sentence: str, count: int = 5) -> list[str]:
    """Return the likeliest words for the [MASK] of a sentence, by plain transformers."""
    import torch
    from transformers import AutoTokenizer

    from pretrain.export.hf_loading import load_plain

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = load_plain(path, "AutoModelForMaskedLM")
    inputs = tokenizer(sentence, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[inputs.input_ids == tokenizer.mask_token_id]
    return [str(tokenizer.decode([index])) for index in logits[0].topk(count).indices.tolist()]


def time_models(paths: list[Path]) -> list[float]:
    """Return each model's median milliseconds a batch, taken in turns on this machine."""
    import torch

    from pretrain.export.hf_loading import load_plain

    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = [load_plain(path, "AutoModel").to(device) for path in paths]
    ids = torch.full((_TIMED_ROWS, _TIMED_TOKENS), 5, device=device)
    seconds: list[list[float]] = [[] for _ in models]
    with torch.no_grad():
        # The first round warms up; the others take turns, so that a busy moment hits them alike.
        for _ in range(_ROUNDS + 1):
            for model, own in zip(models, seconds, strict=True):
                started = time.perf_counter()
                model(input_ids=ids)
                if device == "cuda":
                    torch.cuda.synchronize()
                own.append(time.perf_counter() - started)
    return [1000 * statistics.median(own[1:]) for own in seconds]


def _print_fillings(path: Path, sentences: tuple[str, ...]) -> None:
    print(f"{path}:")
    for sentence in sentences:
        print(f"  {sentence:50} {', '.join(fill_mask(path, sentence))}")


def _measure(path: Path, corpus: Path, rows: int, milliseconds: float) -> Row:
    scores = score_held_out(path, corpus, rows)
    return Row(name=path.name, milliseconds=milliseconds, **scores._asdict())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compare published models: size, held-out scores, speed, a sentence filled in.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("models", type=Path, nargs="+", help="export folders")
    parser.add_argument("--corpus", type=Path, required=True, help="corpus with a held-out part")
    parser.add_argument("--rows", type=int, default=512, help="held-out rows to score")
    parser.add_argument("--language", choices=sorted(_SENTENCES), default="en")
    return parser


if __name__ == "__main__":
    run_command(main)
