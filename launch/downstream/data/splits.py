"""The three sets of examples of a fine-tuning: read, compared, and cut to size.

What the data makes of a score is said: texts that are empty, train examples that are also in dev or
test, a dev set that had to be split off.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.counter_rng import Permutation, key_of
from data_prep.errors import UserError
from launch.downstream.data.conll import read_conll
from launch.downstream.data.examples import Example
from launch.downstream.data.labels import are_lists, label_of, labels_of, number_of
from launch.downstream.data.squad import read_squad
from launch.downstream.data.tables import Columns, read_table
from launch.downstream.options import FinetuneOptions

_DEV_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The examples of a task.

    Attributes:
        train: examples to train on.
        dev: examples that choose.
        test: examples to report.
        labels: of the whole training file, sorted; () of regression and qa.
        is_multi_label: whether an example has several labels, or none.
        notes: what is to be said about them, a sentence each.
    """

    train: Sequence[Example]
    dev: Sequence[Example]
    test: Sequence[Example]
    labels: tuple[str, ...] = ()
    is_multi_label: bool = False
    notes: list[str] = field(default_factory=list)


def read_splits(options: FinetuneOptions) -> Splits:
    """Read the files of a fine-tuning.

    Raises:
        UserError: as the readers, for a training file with less than two labels, and for a label
            in dev or test that the training file lacks.
    """
    notes: list[str] = []
    train = read_examples(options.train, options, notes)
    test = read_examples(options.test, options, notes)
    labels = _labels(options, train)
    is_multi_label = options.task == "classification" and isinstance(train[0].label, tuple)
    if options.dev is None:
        train, dev = split_dev(train, options.max_train)
        notes.append(
            f"no --dev: {len(dev)} examples of {options.train} are split off, {len(train)} are left"
        )
    else:
        dev = read_examples(options.dev, options, notes)
        _check_labels(options.dev, dev, labels, options)
    _check_labels(options.test, test, labels, options)
    train = _drop_empty(train, notes, options)
    for path, examples in ((options.dev, dev), (options.test, test)):
        if path and (empty := sum(example.is_empty for example in examples)):
            notes.append(f"{path} has {empty} empty texts: scored as they are")
    train = _compare(train, dev, test, options, notes)
    if options.max_train is not None and options.max_train < len(train):
        notes.append(f"--max-train: {options.max_train} of {len(train)} train examples are used")
        train = sample(train, options.max_train, "max-train")
    return Splits(
        train=train,
        dev=dev,
        test=test,
        labels=labels,
        is_multi_label=is_multi_label,
        notes=notes,
    )


def read_examples(path: Path, options: FinetuneOptions, notes: list[str]) -> list[Example]:
    """Read the examples of one file in the form of a task; what is to be said goes to the notes."""
    if options.task == "qa":
        examples, said = read_squad(path)
    elif options.task == "tokens":
        examples, said = read_conll(path, _tag_column(options))
    else:
        examples, said = _read_labelled(path, options)
    notes += said
    return examples


def _tag_column(options: FinetuneOptions) -> int | None:
    if "label" not in options.model_fields_set:
        return None
    if not options.label.isdecimal():
        raise UserError(
            f"--label {options.label} is no number: columns of CoNLL files are numbered from 1."
        )
    return int(options.label)


def _read_labelled(path: Path, options: FinetuneOptions) -> tuple[list[Example], list[str]]:
    named = {"--text": options.text}
    if options.text_pair is not None:
        named["--text-pair"] = options.text_pair
    rows, notes = read_table(path, Columns({**named, "--label": options.label}))
    several = options.task == "classification" and (
        options.label_separator is not None or are_lists(rows)
    )
    examples = []
    for number, (where, cells) in enumerate(rows):
        *texts, label = cells
        label_read: Any
        if options.task == "regression":
            label_read = number_of(where, label)
        elif several:
            label_read = labels_of(where, label, options.label_separator)
        else:
            label_read = label_of(where, label)
        text, *pair = ("" if cell is None else str(cell) for cell in texts)
        examples.append(Example(str(number), text, pair[0] if pair else None, label_read, where))
    return examples, notes


def split_dev(
    examples: Sequence[Example], most: int | None = None
) -> tuple[list[Example], list[Example]]:
    """Split off a tenth of the examples, the same one at each call; at most `most`.

    Examples of one text stay together, so that no paragraph has questions in both.

    Raises:
        UserError: for too few different texts to split.
    """
    texts = list(dict.fromkeys(example.text for example in examples))
    if len(texts) < 2:
        raise UserError(
            "The training file has one text alone, so no dev set can be split off: give --dev."
        )
    wanted = max(1, round(_DEV_SHARE * len(examples)))
    wanted = min(wanted, most or wanted)
    sizes = Counter(example.text for example in examples)
    chosen: set[str] = set()
    taken = 0
    for index in Permutation(key_of("dev"), len(texts))(range(len(texts) - 1)).tolist():
        if taken >= wanted:
            break
        chosen.add(texts[index])
        taken += sizes[texts[index]]
    train = [example for example in examples if example.text not in chosen]
    return train, [example for example in examples if example.text in chosen]


def sample(examples: Sequence[Example], size: int, purpose: str) -> list[Example]:
    """Return so many examples in the order of the file, the same ones at each call."""
    order = Permutation(key_of(purpose), len(examples))(range(size))
    return [examples[index] for index in sorted(order.tolist())]


def _labels(options: FinetuneOptions, train: Sequence[Example]) -> tuple[str, ...]:
    """Return the labels of the training file; numbers in their order."""
    if options.task in ("regression", "qa"):
        return ()
    found = {label for example in train for label in labels_in(example)}
    if options.task == "tokens":
        # What one entity of two words needs may be missing where all have one word.
        found |= {f"I-{label[2:]}" for label in found if label.startswith("B-")}
    if len(found) < 2:
        raise UserError(
            f"{options.train} has {'one label, ' + repr(min(found)) if found else 'no labels'}: "
            "two are needed to train."
        )
    if all(label.isdecimal() for label in found):
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


def labels_in(example: Example) -> tuple[str, ...]:
    """Return the label of an example, or all of its labels or tags."""
    return example.label if isinstance(example.label, tuple) else (example.label,)


def _check_labels(
    path: Path, examples: Sequence[Example], labels: Sequence[str], options: FinetuneOptions
) -> None:
    if not labels:
        return
    known = set(labels)
    unknown = Counter(
        label for example in examples for label in labels_in(example) if label not in known
    )
    if unknown:
        first = next(e for e in examples if any(label in unknown for label in labels_in(e)))
        listed = ", ".join(f"{label!r} ({count})" for label, count in unknown.most_common(5))
        raise UserError(
            f"{path} has {len(unknown)} labels that {options.train} lacks: {listed}, first in "
            f"{first.where[0].lower() + first.where[1:]}: correct one of the files."
        )


def _drop_empty(
    examples: Sequence[Example], notes: list[str], options: FinetuneOptions
) -> list[Example]:
    kept = [example for example in examples if not example.is_empty]
    if len(kept) < len(examples):
        notes.append(f"{options.train} has {len(examples) - len(kept)} empty texts: left out")
    if not kept:
        raise UserError(f"All texts of {options.train} are empty: correct --text.")
    return kept


def _compare(
    train: Sequence[Example],
    dev: Sequence[Example],
    test: Sequence[Example],
    options: FinetuneOptions,
    notes: list[str],
) -> list[Example]:
    """Count the train examples whose text is in dev or test; leave them out where that is asked."""
    held_out = {"dev": {e.inputs for e in dev}, "test": {e.inputs for e in test}}
    for name, inputs in held_out.items():
        if count := sum(example.inputs in inputs for example in train):
            fate = "left out" if options.drop_overlap else "kept, see --drop-overlap"
            notes.append(f"{count} of {len(train)} train examples are also in {name}: {fate}")
    if both := sum(inputs in held_out["test"] for inputs in held_out["dev"]):
        notes.append(f"{both} of {len(dev)} dev examples are also in test")
    if not options.drop_overlap:
        return list(train)
    seen = held_out["dev"] | held_out["test"]
    kept = [example for example in train if example.inputs not in seen]
    if not kept:
        raise UserError(
            f"All examples of {options.train} are also in dev or test: give other files."
        )
    return kept
