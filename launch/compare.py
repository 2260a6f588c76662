"""Compare models, ours or others': size, held-out scores, speed, and masked sentences filled in.

    python launch/compare.py export/teacher export/student --corpus runs/corpus

Everything is loaded through plain transformers but the scores, which use the fixed validation set.
The table is printed once everything is computed, so that no progress or warning divides it.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where it is not installed

from launch.command_line.packages import packages_required

with packages_required():
    from data_prep.corpus.shards import Corpus
    from data_prep.errors import UserError
    from launch.benchmarks.report import write_findings
    from launch.command_line.errors import run_command
    from launch.command_line.parser import CommandParser
    from launch.held_out import (
        SCORED_TOKENS,
        HeldOutScores,
        Pairs,
        check_scorable,
        score_held_out,
    )
    from pretrain.export.card.languages import check_language, example_sentences

if TYPE_CHECKING:  # torch takes seconds to import
    from pretrain.model.loading import LocatedModel

_TIMED_ROWS, _ROUNDS = 8, 15


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model in the table."""

    name: str
    scores: HeldOutScores
    milliseconds: float


def main() -> None:
    """Print the filled-in sentences and the table."""
    arguments = _parser().parse_args()
    located = [_locate(path) for path in arguments.models]
    folders = [model.folder for model in located]
    corpus, pairs = arguments.corpus, arguments.pairs
    longest = min(SCORED_TOKENS, *(model.shape.positions for model in located))
    row_tokens = arguments.row_tokens or longest
    for folder in folders:  # before any of them computes
        check_scorable(folder, corpus, row_tokens, pairs)
    languages = _choose_languages(arguments.language, corpus)
    filled = [line for folder in folders for line in _fill_lines(folder, languages)]
    times = time_models(folders, row_tokens)
    scores = [
        score_held_out(folder, corpus, arguments.rows, row_tokens, pairs) for folder in folders
    ]
    rows = [
        Row(name=path.name, scores=found, milliseconds=milliseconds)
        for path, found, milliseconds in zip(arguments.models, scores, times, strict=True)
    ]
    print("\n".join([*filled, "", *table_lines(rows, row_tokens)]))
    if arguments.json:
        found = {"corpus": str(corpus), "row_tokens": row_tokens}
        write_findings(arguments.json, {**found, "models": [_to_json(row) for row in rows]})


def _to_json(row: Row) -> dict[str, object]:
    return {"name": row.name, **row.scores._asdict(), "batch_ms": row.milliseconds}


def _locate(path: Path) -> "LocatedModel":
    """Locate a model that plain transformers opens, and that predicts masked tokens."""
    from pretrain.model.loading import locate

    if (path / "checkpoints").is_dir():
        raise UserError(f"{path} is not a published model: make it with publish_student.py.")
    located = locate(path)
    if not located.has_mlm_head:
        raise UserError(f"{path} has no MLM head to compare: name a model that has one.")
    config = located.folder / "config.json"
    if not config.is_file() or not json.loads(config.read_text(encoding="utf-8")).get("model_type"):
        raise UserError(
            f"{config} has no model_type, without which plain transformers does not open it: add "
            '"model_type": "bert".'
        )
    return located


def table_lines(rows: list[Row], row_tokens: int) -> list[str]:
    """Return the table, a line for each model, and what its columns mean."""
    head = ("model", "parameters", "MLM loss", "accuracy", "baseline", "ms a batch")
    return [
        "{:28} {:>12} {:>9} {:>9} {:>9} {:>11}".format(*head),
        *(
            f"{row.name:28} {row.scores.parameters:12,} {row.scores.loss:9.4f} "
            f"{row.scores.accuracy:9.2%} {row.scores.baseline_accuracy:9.2%} "
            f"{row.milliseconds:11.1f}"
            for row in rows
        ),
        f"(held-out masked tokens; a batch is {_TIMED_ROWS} rows of {row_tokens} tokens; "
        "the baseline always predicts the most frequent token)",
    ]


def fill_masks(path: Path, languages: Sequence[str], count: int = 5) -> dict[str, list[str]]:
    """Return the likeliest tokens for the mask of each sentence, by plain transformers.

    Args:
        path: of the model.
        languages: codes; the sentences are of the first that has some. Without any, the text is
            the mask token of the model's tokenizer alone.
        count: how many tokens.
    """
    import torch
    from transformers import AutoTokenizer

    from pretrain.export.hf_loading import load_plain

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = load_plain(path, "AutoModelForMaskedLM")
    filled = {}
    for text in example_sentences(languages, tokenizer.mask_token) or (tokenizer.mask_token,):
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[inputs.input_ids == tokenizer.mask_token_id]
        best = logits[0].topk(count).indices.tolist()
        filled[text] = [str(tokenizer.decode([index])) for index in best]
    return filled


def time_models(paths: list[Path], row_tokens: int) -> list[float]:
    """Return each model's median milliseconds a batch, taken in turns on this machine."""
    import torch

    from pretrain.export.hf_loading import load_plain

    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = [load_plain(path, "AutoModel").to(device) for path in paths]
    ids = torch.full((_TIMED_ROWS, row_tokens), 5, device=device)
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


def _choose_languages(named: str | None, corpus: Path) -> list[str]:
    """Return the codes that are named, or those of the corpus."""
    if named is not None:
        return check_language(named).split(",")
    return Corpus.open(corpus, "validation").languages


def _fill_lines(path: Path, languages: Sequence[str]) -> list[str]:
    filled = fill_masks(path, languages)
    width = max(map(len, filled))
    return [f"{path}:", *(f"  {text:{width}}  {', '.join(best)}" for text, best in filled.items())]


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "models", type=Path, nargs="+", help="exports, folders of transformers, or names on the hub"
    )
    parser.add_argument("--corpus", type=Path, required=True, help="corpus with a held-out part")
    parser.add_argument("--rows", type=int, default=512, help="held-out rows to score")
    parser.add_argument(
        "--row-tokens",
        type=int,
        help=f"length of these rows; without it {SCORED_TOKENS}, or what all models can read",
    )
    parser.add_argument(
        "--pairs",
        choices=get_args(Pairs),
        default="next_sentence",
        help="samples to score on, as the models were trained with: `samples.pairs`",
    )
    parser.add_argument(
        "--language",
        metavar="CODE",
        help="ISO 639 code of the masked sentences; without it the corpus's",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    return parser


if __name__ == "__main__":
    run_command(main)
