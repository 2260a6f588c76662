"""The folder of an unfinished corpus: the output of each task, and whether it is still valid.

A task writes its parts and then its completion marker, with a fingerprint of everything the parts
depend on. A task with a marker of the right fingerprint is done. So a rerun, in any process, does
only what is missing, and a changed input or option reruns only the tasks that depend on it.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.manifest import fingerprint, write_json
from data_prep.pipeline.task import Task, TaskResult
from data_prep.pipeline.task_output import Part

_ARRAY = "array_of_"
_VERSION = 2  # raise it when the same text and options give other parts


def marker_path(folder: Path, index: int) -> Path:
    """Return the completion marker of a task in the folder of an unfinished corpus."""
    return folder / f"task_{index:05d}.json"


class WorkFolder:
    """The folder that holds the parts of a corpus until they are merged.

    Args:
        corpus: the future corpus; the folder is beside it.
        facts: everything that all tasks depend on: options, tokenizer, format.
        tasks: all tasks of the corpus.
    """

    def __init__(self, corpus: Path, facts: dict[str, Any], tasks: Sequence[Task]) -> None:
        self.path = corpus.with_name(f"{corpus.name}.partial")
        self.tasks = tasks
        self._facts = facts

    def result(self, task: Task) -> TaskResult | None:
        """Return the result of a task, or None if it is not done or one of its files is missing."""
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

    def note_array(self, count: int) -> None:
        """Record of how many array tasks one was started, for a merge that misses some."""
        (self.path / f"{_ARRAY}{count}").touch()

    def array_counts(self) -> list[int]:
        """Return of how many array tasks those that were started are."""
        return sorted(int(path.name.removeprefix(_ARRAY)) for path in self.path.glob(f"{_ARRAY}*"))

    def lock_of(self, task: Task) -> Path:
        """Return the lock file that is held while a task runs."""
        return self.path / f"task_{task.index:05d}.lock"

    def _marker(self, task: Task) -> Path:
        return marker_path(self.path, task.index)

    def _fingerprint(self, task: Task) -> str:
        slices = [
            [
                piece.source.name,
                piece.source.size,
                piece.source.modified_s(),
                *([piece.source.identity] if piece.source.identity else []),
                piece.start,
                piece.stop,
            ]
            for piece in task.slices
        ]
        return fingerprint([_VERSION, self._facts, slices])
