"""Toy tasks in the words of the tiny tokenizer, which a tiny model learns in seconds."""

import json
from pathlib import Path

import numpy as np

from tests.synthetic_corpora import WORDS

RARE, OTHERS = WORDS[0], WORDS[1:12]
SETS = {"train": 96, "dev": 32, "test": 32}


def write_classification(folder: Path) -> list[str]:
    """Write texts whose label says whether they hold the rare word; return the switches."""
    for name, size in SETS.items():
        generator = np.random.default_rng(len(name) + size)
        lines = ["text,label"]
        for index in range(size):
            words = list(generator.choice(OTHERS, 5))
            words += [RARE] if index % 2 else []
            lines.append(f"{' '.join(words)},{'yes' if index % 2 else 'no'}")
        (folder / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
    return ["--task", "classification", *_files(folder, "csv")]


def write_regression(folder: Path) -> list[str]:
    """Write pairs whose number depends on the second text alone; return the switches."""
    for name, size in SETS.items():
        generator = np.random.default_rng(len(name) + size)
        rows = []
        for index in range(size):
            first, second = " ".join(generator.choice(OTHERS, 3)), RARE if index % 2 else OTHERS[0]
            rows.append({"a": first, "b": second, "score": 20.0 if index % 2 else 10})
        text = "\n".join(map(json.dumps, rows))
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    columns = ["--text", "a", "--text-pair", "b", "--label", "score"]
    return ["--task", "regression", *_files(folder, "jsonl"), *columns]


def write_tokens(folder: Path) -> list[str]:
    """Write sentences in which the rare word and the one behind it are an entity."""
    for name, size in SETS.items():
        generator = np.random.default_rng(len(name) + size)
        lines = []
        for _ in range(size):
            before, behind = generator.choice(OTHERS, 2), generator.choice(OTHERS, 2)
            lines += [f"{word} O" for word in before]
            lines += [f"{RARE} B-x", f"{behind[0]} I-x", f"{behind[1]} O", ""]
        (folder / f"{name}.conll").write_text("\n".join(lines), encoding="utf-8")
    return ["--task", "tokens", *_files(folder, "conll")]


def write_qa(folder: Path) -> list[str]:
    """Write contexts whose answer is the rare word; a question in four has no answer."""
    for name, size in SETS.items():
        generator = np.random.default_rng(len(name) + size)
        paragraphs = []
        for index in range(size):
            words = list(map(str, generator.choice(OTHERS, 6)))
            found = bool(index % 4)
            words[index % 6] = RARE if found else words[index % 6]
            context = " ".join(words)
            answers = [{"text": RARE, "answer_start": context.index(RARE)}] if found else []
            question = {"id": f"q{index}", "question": OTHERS[1], "answers": answers}
            paragraphs.append(
                {"context": context, "qas": [{**question, "is_impossible": not found}]}
            )
        content = {"data": [{"paragraphs": paragraphs}]}
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return ["--task", "qa", *_files(folder, "json")]


def _files(folder: Path, suffix: str) -> list[str]:
    return [word for name in SETS for word in (f"--{name}", str(folder / f"{name}.{suffix}"))]
