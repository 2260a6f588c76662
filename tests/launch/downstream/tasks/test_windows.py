"""Long contexts are read in windows: answers are found in them, and questions counted once."""

from pathlib import Path

import numpy as np

from launch.downstream.data.examples import Answer, Example
from launch.downstream.models import load_tokenizer
from launch.downstream.tasks.answers import Answers
from tests.synthetic_corpora import WORDS

LONG = " ".join(WORDS[:80])
ANSWER = " ".join(WORDS[60:63])


def make_examples() -> list[Example]:
    """Return a question about a long context, and one about a short context."""
    long = Example("a", LONG, WORDS[0], (Answer(ANSWER, LONG.index(ANSWER)),))
    return [long, Example("b", WORDS[5], WORDS[0], (Answer(WORDS[5], 0),))]


def test_windows_cover_long_contexts(tiny_tokenizer: Path) -> None:
    """Each word is in a window, no window is too long, and one question has several."""
    encoded = Answers(8, False).encode(load_tokenizer(tiny_tokenizer), make_examples(), 32, True)
    assert encoded.too_long == 1
    assert max(len(row["input_ids"]) for row in encoded.features) <= 32
    spans = {span for w in encoded.details if w.example == 0 for span in w.spans if span}
    assert {LONG[start:end] for start, end in spans} == set(WORDS[:80])


def test_targets_are_the_answer(tiny_tokenizer: Path) -> None:
    """First and last token are those of the answer, or [CLS] in a window without it."""
    encoded = Answers(8, False).encode(load_tokenizer(tiny_tokenizer), make_examples(), 32, True)
    found = 0
    for row, window in zip(encoded.features, encoded.details, strict=True):
        first, last = row["start_positions"], row["end_positions"]
        if (first, last) == (window.cls, window.cls):
            continue
        example = encoded.examples[window.example]
        assert example.text[window.spans[first][0] : window.spans[last][1]] == example.label[0].text
        found += 1
    assert found >= 2


def test_best_window_answers(tiny_tokenizer: Path) -> None:
    """The span with the best logits of all windows is given, its end never before its start."""
    task = Answers(8, False)
    encoded = task.encode(load_tokenizer(tiny_tokenizer), make_examples(), 32, True)
    shape = (len(encoded.features), 32)
    starts, ends = np.zeros(shape), np.zeros(shape)
    for row, feature in enumerate(encoded.features):
        starts[row, feature["start_positions"]] = ends[row, feature["end_positions"]] = 9.0
    predictions = task.predict((starts, ends), encoded)
    assert [prediction.value for prediction in predictions] == [ANSWER, WORDS[5]]
    assert task.score(encoded.examples, predictions).values["exact_match"] == 1.0
