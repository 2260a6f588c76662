"""The folder of an unfinished corpus: what each task left, and whether it still counts.

A task writes its parts and then its completion marker, which names everything the parts depend on.
A task whose marker is there and fits is done; so a rerun, in whatever process, does only what is
missing, and a changed input or option makes just the tasks that it touches run again.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.manifest import fingerprint, write_json
from data_prep.pipeline.task import Task, TaskResult
from data_prep.pipeline.task_output import Part

_VERSION = 1  # raise it when the same text and options give other parts


class WorkFolder:
    """Where the parts of a corpus lie until it is merged.

    Args:
        corpus: the corpus to be; the folder is beside it.
        facts: what every task depends on: options, tokenizer, format.
        tasks: all tasks of the corpus.
    """

    def __init__(self, corpus: Path, facts: dict[str, Any], tasks: Sequence[Task]) -> None:
        self.path = corpus.with_name(f"{corpus.name}.partial")
        self.tasks = tasks
        self._facts = facts

    def missing(self) -> list[Task]:
        """Return the tasks that are not done."""
        return [task for task in self.tasks if self.result(task) is None]

    def result(self, task: Task) -> TaskResult | None:
        """Return what a task left, or None when it is not done or its files are not all there."""
        marker = self._marker(task)
        if not marker.is_file():
            return None
        content = json.loads(marker.read_text(encoding="utf-8"))
        parts = [Part.from_dict(part) for part in content["parts"]]
        files = {name: facts for part in parts for name, facts in part.files.items()}
        if content["fingerprint"] != self._fingerprint(task) or any(
            not (self.path / name).is_file() or (self.path / name).stat().st_size != facts["bytes"]
            for name, facts in files.items()
        ):
            return None
        return TaskResult(task=task, parts=parts, counts=Counter(content["counts"]))

    def save(self, result: TaskResult) -> None:
        """Write the completion marker of a task, after all of its files."""
        content = {
            "fingerprint": self._fingerprint(result.task),
            "parts": [part.to_dict() for part in result.parts],
            "counts": dict(result.counts),
        }
        write_json(self._marker(result.task), content)

    def lock_of(self, task: Task) -> Path:
        """Return the lock that whoever works on a task holds."""
        return self.path / f"task_{task.index:05d}.lock"

    def forget(self, part: str) -> None:
        """Remove the marker of the task that made a part, so that it is made again."""
        self._marker_of(int(part.partition("_")[0])).unlink(missing_ok=True)

    def _marker(self, task: Task) -> Path:
        return self._marker_of(task.index)

    def _marker_of(self, index: int) -> Path:
        return self.path / f"task_{index:05d}.json"

    def _fingerprint(self, task: Task) -> str:
        slices = [
            [
                piece.source.name,
                piece.source.size,
                piece.source.modified_s(),
                piece.start,
                piece.stop,
            ]
            for piece in task.slices
        ]
        return fingerprint([_VERSION, self._facts, slices])
