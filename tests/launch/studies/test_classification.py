"""Fine-tuning improves on a task, depends on its seed alone, and reports the best rate on dev."""

import itertools
from pathlib import Path

import pytest
import torch

from launch.studies.classification import (
    Encoded,
    Start,
    accuracy,
    batch_orders,
    best_accuracy,
    encode,
    fine_tune,
    load_classifier,
    make_batch,
)
from launch.studies.options import TaskOptions
from launch.studies.tasks import Examples, Task
from tests.synthetic_corpora import WORDS

CPU = torch.device("cpu")
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
    """The same seed gives the same scores."""
    task = make_task([1e-3], epochs=1)
    rows = encode(published_teacher, task.train, 32)
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = load_classifier(published_teacher, 2)
        fine_tune(model, rows, task.options, seed, 1e-3, CPU)
        weights.append(model.classifier.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


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


class ByLength(torch.nn.Module):
    """Finds the label 1 in rows of more than two tokens."""

    def forward(self, attention_mask: torch.Tensor, **_: torch.Tensor) -> "ByLength":
        lengths = attention_mask.sum(1)
        self.logits = torch.stack([2.5 - lengths, lengths - 2.5], 1)
        return self


def test_accuracy_counts_each_example_once() -> None:
    """Accuracy counts each example once, whatever its length."""
    rows = [[2, 3], [2, 9, 8, 7, 3], [2, 9, 3], [2, 3]] * 40
    right = [0, 1, 0, 0] * 40  # the third of each four is found as 1
    assert accuracy(ByLength(), Encoded(rows, right), CPU) == 0.75


def test_batch_pads_behind_attention_mask() -> None:
    """A batch pads short texts, and the attention mask excludes the padding."""
    batch = make_batch(Encoded([[2, 7, 3], [2, 3]], [1, 0]), [1, 0], CPU)
    assert batch["input_ids"].tolist() == [[2, 3, 0], [2, 7, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [0, 1]


def test_epoch_has_every_row_once() -> None:
    """An epoch has every row once."""
    batches = list(batch_orders(10, 2, 4, seed=3))
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    first, second = (list(itertools.chain(*half)) for half in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


@pytest.mark.parametrize("most", [8, 16])
def test_texts_truncate_at_task_length(published_teacher: Path, most: int) -> None:
    """Texts are cut at the task's `max_tokens`."""
    rows = encode(published_teacher, Examples(("a " * 50,), (0,)), most).rows
    assert len(rows[0]) == most
