"""Fine-tuning improves on a task, depends on its seed alone, and reports the best rate on dev."""

from pathlib import Path

import pytest
import torch

from launch.downstream.models import load_tokenizer
from launch.downstream.tasks.classification import Classification
from launch.studies.classification import Start, best_accuracy, encode, load_classifier
from launch.studies.options import TaskOptions
from launch.studies.tasks import Examples, Task
from tests.synthetic_corpora import WORDS

STARTS: tuple[Start, Start] = ("trained", "random")


def make_task(rates: list[float], epochs: int = 8) -> Task:
    """Return a task that one word decides: does the text hold the first one?"""
    words = WORDS[:12]
    generator = torch.Generator().manual_seed(0)
    texts = []
    for index in range(96):
        others = [words[i] for i in torch.randint(1, 12, (5,), generator=generator).tolist()]
        texts.append(" ".join([words[0], *others] if index % 2 else others))
    labels = tuple(index % 2 for index in range(96))
    parts = [Examples(tuple(texts[a:b]), labels[a:b]) for a, b in ((0, 64), (64, 80), (80, 96))]
    files = {part: Path(part) for part in ("train", "dev", "test")}
    options = TaskOptions(name="word", **files, epochs=epochs, batch_rows=8, rates=rates)
    return Task(options, ("no", "yes"), *parts)


def test_best_dev_rate_is_reported(
    published_teacher: Path,
) -> None:
    """A model is fine-tuned at every rate, and the one that is best on dev is reported."""
    task = make_task([1e-9, 3e-3])
    found = best_accuracy(published_teacher, task, 0)
    assert found["rate"] == 3e-3
    assert found["dev"] >= 0.9
    assert found["test"] >= 0.9
    assert [scores["rate"] for scores in found["tried"]] == [1e-9, 3e-3]
    assert found["tried"][0]["dev"] < found["dev"]


def test_same_seed_gives_same_scores(published_teacher: Path) -> None:
    """The same seed gives the same scores, to the last digit."""
    task = make_task([1e-3, 2e-3], epochs=2)
    first, again = (best_accuracy(published_teacher, task, 0, "random") for _ in range(2))
    assert first == again


def test_random_weights_keep_shape_only(published_teacher: Path) -> None:
    """Random weights have the shape of the model and none of its values."""
    loaded, random = (load_classifier(published_teacher, 2, start).state_dict() for start in STARTS)
    assert {n: t.shape for n, t in loaded.items()} == {n: t.shape for n, t in random.items()}
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(loaded[name], random[name])


def test_classifier_with_copied_layers(published_teacher: Path) -> None:
    """A classifier of some layers has the weights of these, in that order, and all embeddings."""
    whole = load_classifier(published_teacher, 2).base_model.state_dict()
    part = load_classifier(published_teacher, 2, (1,)).base_model.state_dict()
    layers = {name for name in part if name.startswith("encoder.layer.")}
    assert layers == {name for name in whole if name.startswith("encoder.layer.0.")}
    for name, weight in part.items():
        expected = whole[name.replace("layer.0.", "layer.1.")]
        assert torch.equal(weight, expected), name


@pytest.mark.parametrize("most", [8, 16])
def test_texts_truncate_at_task_length(published_teacher: Path, most: int) -> None:
    """Texts are cut at the task's `max_tokens`, and keep their labels."""
    tokenizer, classes = load_tokenizer(published_teacher), Classification(("no", "yes"))
    (row,) = encode(tokenizer, classes, Examples(("a " * 50,), (1,)), most).features
    assert len(row["input_ids"]) == most and row["labels"] == 1
