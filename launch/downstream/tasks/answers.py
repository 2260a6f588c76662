"""Questions whose answers are spans of a context, read in overlapping windows.

Shapes: N windows, S tokens.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from launch.downstream.data.examples import Answer, Example
from launch.downstream.data.squad import NOWHERE
from launch.downstream.scores.answers import best_f1, exact_match
from launch.downstream.scores.scores import Scores
from launch.downstream.tasks.base import (
    Encoded,
    FloatArray,
    Prediction,
    Resampled,
)

_BEST = 20  # starts and ends of a window that are combined
_LONGEST_TOKENS = 30  # of an answer, as in BERT's script
_QUESTION_SHARE = 2  # a question may take one half of a window


class Window(NamedTuple):
    """A window of a question's context."""

    example: int
    spans: list[tuple[int, int] | None]  # characters of each token; None outside the context
    cls: int  # index of the token that stands for no answer


class Span(NamedTuple):
    """An answer that a model may give: its logits summed, and its characters."""

    score: float
    start: int
    end: int


class Answers:
    """Spans that answer questions.

    Args:
        stride: tokens that neighbouring windows share.
        has_impossible: whether some questions have no answer, as in SQuAD 2.0; else the best span
            is always given.
    """

    head = "AutoModelForQuestionAnswering"
    chosen_by = "f1"
    choices: Sequence[str] = ("f1", "exact_match")
    has_windows = True
    loss_weights: Sequence[float] | None = None

    def __init__(self, stride: int, has_impossible: bool) -> None:
        self.stride, self.has_impossible = stride, has_impossible

    def settings(self) -> dict[str, Any]:
        """Return nothing: the head has no labels."""
        return {}

    def finish(self, model: Any) -> None:
        """Leave the model as it is."""

    def encode(
        self, tokenizer: Any, examples: Sequence[Example], max_tokens: int, for_training: bool
    ) -> Encoded:
        """Return the ids of windows, and first and last token of the answer where it is in one.

        The details are the windows.
        """
        questions = _cut_questions(tokenizer, examples, max_tokens // _QUESTION_SHARE)
        room = max_tokens - max(map(len, tokenizer(questions)["input_ids"]))
        cut = tokenizer(
            questions,
            [example.text for example in examples],
            truncation="only_second",
            max_length=max_tokens,
            # Windows that share all of their context but a token would never end.
            stride=min(self.stride, max(1, room // 2)),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        owners = cut.pop("overflow_to_sample_mapping")
        offsets = cut.pop("offset_mapping")
        features, windows = [], []
        for row, owner in enumerate(owners):
            window = _window(cut, row, owner, offsets[row], tokenizer.cls_token_id)
            feature = {name: cut[name][row] for name in cut}
            if for_training:
                targets = _targets(window, examples[owner].label)
                if targets is None:
                    continue
                feature["start_positions"], feature["end_positions"] = targets
            features.append(feature)
            windows.append(window)
        several = sum(count > 1 for count in Counter(owners).values())
        return Encoded(features, examples, several, windows)

    def predict(self, logits: Any, encoded: Encoded) -> list[Prediction]:
        """Return the text of the best span of all windows of each question, "" for no answer."""
        spans: list[list[Span]] = [[] for _ in encoded.examples]
        nothing = [np.inf] * len(encoded.examples)
        for window, start_S, end_S in zip(encoded.details, *logits, strict=True):
            spans[window.example] += _best_spans(window, start_S, end_S)
            none = float(start_S[window.cls] + end_S[window.cls])
            nothing[window.example] = min(nothing[window.example], none)
        return [
            self._choose(example, own, none)
            for example, own, none in zip(encoded.examples, spans, nothing, strict=True)
        ]

    def _choose(self, example: Example, spans: Sequence[Span], nothing: float) -> Prediction:
        best = sorted(spans, key=lambda span: -span.score)[:_BEST]
        scores = [span.score for span in best]
        if self.has_impossible or not best:
            scores.append(nothing)
        chances = np.exp(np.array(scores) - max(scores))
        chances /= chances.sum()
        index = int(np.argmax(chances))
        text = example.text[best[index].start : best[index].end] if index < len(best) else ""
        return Prediction(text, float(chances[index]))

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Scores:
        """Return the shares of exact match and F1."""
        return Scores(self.resampled(examples, predictions)(np.arange(len(examples))))

    def resampled(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> Resampled:
        """Return a function from indices of questions to the scores of these."""
        answers = [[answer.text for answer in example.label] for example in examples]
        pairs = list(zip([p.value for p in predictions], answers, strict=True))
        exact = np.array([exact_match(found, right) for found, right in pairs])
        f1 = np.array([best_f1(found, right) for found, right in pairs])
        return lambda rows: {
            "exact_match": float(exact[rows].mean()),
            "f1": float(f1[rows].mean()),
        }


def _cut_questions(tokenizer: Any, examples: Sequence[Example], most: int) -> list[str]:
    """Return the questions, those of too many tokens cut, so that each window has context."""
    questions = [(example.pair or "").lstrip() for example in examples]
    found = tokenizer(
        questions,
        truncation=True,
        max_length=most,
        return_offsets_mapping=True,
    )["offset_mapping"]
    return [
        question[: max((end for _, end in offsets), default=0)]
        for question, offsets in zip(questions, found, strict=True)
    ]


def _window(cut: Any, row: int, owner: int, offsets: Any, cls_id: int | None) -> Window:
    spans = [
        (int(start), int(end)) if part == 1 else None
        for part, (start, end) in zip(cut.sequence_ids(row), offsets, strict=True)
    ]
    ids = cut["input_ids"][row]
    return Window(owner, spans, ids.index(cls_id) if cls_id in ids else 0)


def _targets(window: Window, answers: Sequence[Answer]) -> tuple[int, int] | None:
    """Return first and last token of the first answer; [CLS] if the window lacks it.

    None for a question none of whose answers is in its context: nothing can be learnt from it.
    """
    if not answers:
        return window.cls, window.cls
    placed = [answer for answer in answers if answer.start != NOWHERE]
    if not placed:
        return None
    start, end = placed[0].start, placed[0].start + len(placed[0].text)
    inside = [
        index
        for index, span in enumerate(window.spans)
        if span is not None and span[0] < end and span[1] > start
    ]
    known = [span for span in window.spans if span is not None]
    if not inside or known[0][0] > start or known[-1][1] < end:
        return window.cls, window.cls
    return inside[0], inside[-1]


def _best_spans(window: Window, start_S: FloatArray, end_S: FloatArray) -> Iterator[Span]:
    allowed = [index for index, span in enumerate(window.spans) if span is not None]
    starts = sorted(allowed, key=lambda index: -start_S[index])[:_BEST]
    ends = sorted(allowed, key=lambda index: -end_S[index])[:_BEST]
    for first in starts:
        for last in ends:
            if first <= last < first + _LONGEST_TOKENS:
                begin, end = window.spans[first], window.spans[last]
                assert begin is not None and end is not None  # both are allowed
                yield Span(float(start_S[first] + end_S[last]), begin[0], end[1])
