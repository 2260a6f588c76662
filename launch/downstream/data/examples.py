"""Examples of downstream tasks: what every reader returns and every task reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """An answer to a question: its text, and the character of the context where it starts."""

    text: str
    start: int


@dataclass(frozen=True)
class Example:
    """One example.

    Attributes:
        id: names it among the examples of its file.
        text: the text, the context of a question, or the words of a sentence joined by spaces.
        pair: the second text of a pair, or the question about the context.
        label: a label (classification), labels (a tuple, multi-label), a number (regression), a tag
            for each word (tokens), or the right answers (qa; none where there is no answer).
        where: line or row in its file, for messages.
        words: of a sentence with a tag for each.
    """

    id: str
    text: str
    pair: str | None = None
    label: Any = None
    where: str = ""
    words: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, str | None]:
        """What a model sees of it."""
        return self.text, self.pair

    @property
    def is_empty(self) -> bool:
        """Whether a text of it has no characters but white space."""
        return not self.text.strip() or (self.pair is not None and not self.pair.strip())


Examples = Sequence[Example]
