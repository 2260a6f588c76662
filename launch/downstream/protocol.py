"""The protocol by which every model is fine-tuned: the same for a student and its teacher.

Each rate is tried with the first seed; the rate that is best on dev serves all seeds. The test set
is seen once by each seed's best epoch, and chooses nothing.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_prep.errors import UserError
from launch.downstream.data.splits import Splits
from launch.downstream.models import Source, load_model, weights_bytes
from launch.downstream.options import FinetuneOptions
from launch.downstream.own_folders import mark, remove_earlier
from launch.downstream.scores.scores import Scores, bootstrap, median_index
from launch.downstream.tasks.base import Encoded, Prediction, Task
from launch.downstream.training import Fit, fit, predict, without_deepspeed


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One model that was fine-tuned.

    Attributes:
        seed: of it.
        rate: highest learning rate.
        fit: its training, with the scores on dev.
        test: scores on test.
        predictions: on test.
    """

    seed: int
    rate: float
    fit: Fit
    test: Scores
    predictions: Sequence[Prediction]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A model fine-tuned with every seed.

    Attributes:
        source: the encoder.
        folder: where the model of the median seed was left.
        seeds: results, one a seed.
        tried: all rates of the first seed, with the scores on dev.
        median: index of the seed whose score is the median.
        intervals: of the scores of that seed, over the choice of test examples.
        too_long: by set, texts that were cut or read in several windows.
        parameters: number of parameters.
        weights_bytes: size of the model's file.
    """

    source: Source
    folder: Path
    seeds: Sequence[SeedResult]
    tried: Sequence[dict[str, Any]]
    median: int
    intervals: dict[str, tuple[float, float]]
    too_long: dict[str, int]
    parameters: int
    weights_bytes: int

    @property
    def median_seed(self) -> SeedResult:
        """The seed whose model and predictions are kept."""
        return self.seeds[self.median]


class _Runner:
    """Fine-tunes one encoder again and again, on examples that are encoded once.

    Models are written to `folder`.
    """

    def __init__(
        self, source: Source, task: Task, splits: Splits, options: FinetuneOptions, folder: Path
    ) -> None:
        self._source, self._task, self._options, self._folder = source, task, options, folder
        self.encoded: dict[str, Encoded] = {
            name: task.encode(source.tokenizer, examples, source.max_tokens, name == "train")
            for name, examples in (
                ("train", splits.train),
                ("dev", splits.dev),
                ("test", splits.test),
            )
        }
        if not self.encoded["train"].features:
            raise UserError(f"No example of {options.train} can be learnt from: correct the file.")
        self.parameters = 0

    def run(self, seed: int, rate: float) -> SeedResult:
        source, task = self._source, self._task
        model = load_model(source.folder, task.head, task.settings(), seed)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        train, dev, test = (self.encoded[name] for name in ("train", "dev", "test"))
        found = fit(model, source.tokenizer, task, train, dev, self._options, rate=rate, seed=seed)
        predictions = predict(model, source.tokenizer, task, test)
        task.finish(model)
        save_model(model, source.tokenizer, self.folder_of(seed, rate))
        scores = task.score(test.examples, predictions)
        return SeedResult(seed=seed, rate=rate, fit=found, test=scores, predictions=predictions)

    def folder_of(self, seed: int, rate: float) -> Path:
        return self._folder / f"{rate:g}-{seed}"


def finetune(
    source: Source,
    task: Task,
    splits: Splits,
    options: FinetuneOptions,
    folder: Path,
    report: Callable[[str], None],
) -> Outcome:
    """Fine-tune an encoder with each seed.

    Args:
        source: the encoder.
        task: of the examples.
        splits: the examples.
        options: of the protocol.
        folder: is left with the model of the median seed.
        report: is called with a line after each training.
    """
    # A new folder of its own: what an interrupted call left is neither read nor replaced.
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as working:
        runner = _Runner(source, task, splits, options, Path(working))

        def run(seed: int, rate: float) -> SeedResult:
            result = runner.run(seed, rate)
            report(_line(source, task, result))
            return result

        first = [run(0, rate) for rate in dict.fromkeys(options.lr)]
        best = max(first, key=lambda result: _chosen(task, result.fit.dev))
        for other in first:
            if other is not best:
                shutil.rmtree(runner.folder_of(0, other.rate))
        seeds = [best, *(run(seed, best.rate) for seed in range(1, options.seeds))]
        median = median_index([_chosen(task, result.test) for result in seeds])
        _keep(runner.folder_of(seeds[median].seed, best.rate), folder)
    test = runner.encoded["test"]
    scores_of = task.resampled(test.examples, seeds[median].predictions)
    return Outcome(
        source=source,
        folder=folder,
        seeds=seeds,
        tried=[
            {"rate": result.rate, "epoch": result.fit.epoch, "dev": result.fit.dev.values}
            for result in first
        ],
        median=median,
        intervals=bootstrap(scores_of, len(test.examples)),
        too_long={name: each.too_long for name, each in runner.encoded.items()},
        parameters=runner.parameters,
        weights_bytes=weights_bytes(folder),
    )


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model and its tokenizer, readable by those whom the umask lets read any file."""
    with without_deepspeed():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    mode = (folder / "config.json").stat().st_mode & 0o777
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)  # safetensors writes mode 600


def _keep(trained: Path, folder: Path) -> None:
    """Move a model to its folder, in place of an earlier call's."""
    mark(trained)
    remove_earlier(folder)
    trained.rename(folder)


def _chosen(task: Task, scores: Scores) -> float:
    return scores.values.get(task.chosen_by, -torch.inf)


def _line(source: Source, task: Task, result: SeedResult) -> str:
    name = task.chosen_by
    dev, test = (
        f"{s.values[name]:.4f}" if name in s.values else "undefined"
        for s in (result.fit.dev, result.test)
    )
    return (
        f"{source.name}: rate {result.rate:g}, seed {result.seed}, epoch {result.fit.epoch}: "
        f"{name} {dev} on dev, {test} on test"
    )
