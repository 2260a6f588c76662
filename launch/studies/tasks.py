"""Classification tasks: texts with a label each, from .csv and .tsv files."""

import csv
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from launch.studies.options import TaskOptions

_PROTOCOL = "best epoch on dev"  # scores of another protocol are not comparable


@dataclass(frozen=True)
class Examples:
    """Texts and the number of the label of each."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Task:
    """A task with its examples in memory."""

    options: TaskOptions
    labels: tuple[str, ...]
    train: Examples
    dev: Examples
    test: Examples

    @property
    def fingerprint(self) -> str:
        """What decides a model's scores: the examples, and how it is fine-tuned on them."""
        options = self.options.model_dump(mode="json", exclude={"train", "dev", "test"})
        parts = [[part.texts, part.labels] for part in (self.train, self.dev, self.test)]
        decides = [_PROTOCOL, options, self.labels, parts]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def read_task(options: TaskOptions) -> Task:
    """Read the three files of a task; its labels are those of the training examples.

    A training example whose text is in `dev` or `test` too is left out, and their number printed:
    with it the rate would be chosen, or the model scored, on examples it was trained on.

    Raises:
        UserError: for a file or a column that is not there, a file without examples, or a label
            that the training examples do not have.
    """
    train, dev, test = (
        _read_table(path, options) for path in (options.train, options.dev, options.test)
    )
    held_out = {text for text, _ in dev + test}
    kept = [example for example in train if example[0] not in held_out]
    if not kept:
        raise UserError(
            f"All examples of {options.train} are also in {options.dev} or {options.test}: give "
            f"the task {options.name} other files."
        )
    if len(kept) < len(train):
        print(
            f"{options.name}: {len(train) - len(kept):,} of {len(train):,} training examples are "
            "also in dev or test, and left out",
            file=sys.stderr,
        )
    labels = tuple(sorted({label for _, label in kept}))
    if len(labels) < 2:
        raise UserError(
            f"{options.train} has one label, {labels[0]!r}: the task {options.name} needs two."
        )
    parts = (
        _numbered(path, table, labels, options)
        for path, table in ((options.train, kept), (options.dev, dev), (options.test, test))
    )
    return Task(options, labels, *parts)


def _numbered(
    path: Path, table: Sequence[tuple[str, str]], labels: Sequence[str], options: TaskOptions
) -> Examples:
    numbers = {label: number for number, label in enumerate(labels)}
    unknown = next((label for _, label in table if label not in numbers), None)
    if unknown is not None:
        raise UserError(
            f"{path} has the label {unknown!r}, which no training example in {options.train} has: "
            "correct one of them."
        )
    texts, own = zip(*table, strict=True)
    return Examples(texts, tuple(numbers[label] for label in own))


def _read_table(path: Path, options: TaskOptions) -> list[tuple[str, str]]:
    if not path.is_file():
        raise UserError(f"The task {options.name} has no file {path}: correct its path.")
    try:
        table = list(_examples(path, options))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read as UTF-8 and a table ({error}): correct it."
        ) from None
    if not table:
        raise UserError(f"{path} has no examples: give the task {options.name} another file.")
    return table


def _examples(path: Path, options: TaskOptions) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        # In .tsv files quotes are characters of the text, as in GLUE; in .csv they enclose it.
        if path.suffix == ".tsv":
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            reader = csv.DictReader(file)
        for column in (options.text, options.label):
            if column not in (reader.fieldnames or ()):
                raise UserError(
                    f"{path} has no column {column!r} but {', '.join(reader.fieldnames or ())}: "
                    f"correct text or label of the task {options.name}."
                )
        for row in reader:
            yield _example(f"Line {reader.line_num} of {path}", row, options)


def _example(where: str, row: Mapping[str | None, Any], options: TaskOptions) -> tuple[str, str]:
    if None in row:  # what was left over
        raise UserError(f"{where} has more cells than there are columns: quote its text.")
    text, label = ((row[column] or "").strip() for column in (options.text, options.label))
    if not text or not label:
        raise UserError(f"{where} has no {'label' if text else 'text'}: complete it.")
    return text, label
