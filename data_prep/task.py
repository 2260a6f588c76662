"""One task: a few slices of input become one shard of each split.

A task depends on its slices, the options and the tokenizer, and on nothing that ran before it in
the same process; so it may run anywhere, in any order.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.corpus import Document, read_documents
from data_prep.encoder import IdArray, SentenceEncoder
from data_prep.keyed import key_of
from data_prep.options import CorpusRecipe
from data_prep.sentences import split_sentences
from data_prep.shards import SPLITS, ShardCounts, ShardWriter, shard_files, token_type_for
from data_prep.sources import Slice
from data_prep.tokenizer import load_tokenizer

# Sentences are tokenized in batches of about this many characters, whole documents at a time.
_BATCH_CHARS = 1 << 19


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to do: `index` numbers the shards, `slices` are read in order."""

    index: int
    slices: Sequence[Slice]

    @property
    def size(self) -> int:
        """Input bytes."""
        return sum(piece.stop - piece.start for piece in self.slices)


@dataclass(kw_only=True)
class TaskResult:
    """What came of a task; `shards` has only those that hold documents."""

    task: Task
    shards: dict[str, ShardCounts] = field(default_factory=dict)
    dropped: dict[str, int] = field(
        default_factory=lambda: {"empty": 0, "too_short": 0, "without_tokens": 0}
    )
    counts: Counter[str] = field(default_factory=Counter)


class TaskRunner:
    """Runs tasks in one process; chunks learned in one task serve the next."""

    def __init__(self, recipe: CorpusRecipe, directory: Path) -> None:
        tokenizer = load_tokenizer(recipe.tokenizer.path)
        self._token_type = token_type_for(tokenizer.vocab_size)
        self._encoder = SentenceEncoder(tokenizer.backend, self._token_type, "en")
        self._recipe = recipe
        self._directory = directory

    def run(self, task: Task) -> TaskResult:
        """Write the shards of a task; an empty shard leaves no files.

        Raises:
            UserError: when the input cannot be read as the recipe says.
        """
        result = TaskResult(task=task)
        names = {split: f"{split}_{task.index:05d}" for split in SPLITS}
        with contextlib.ExitStack() as stack:
            writers = {
                split: stack.enter_context(ShardWriter(self._directory, name, self._token_type))
                for split, name in names.items()
            }
            for batch in _batches(self._kept_documents(task, result)):
                for document, sentences in zip(batch, self._encode(batch), strict=True):
                    if sentences:
                        writers[self._split_of(document)].add_document(sentences)
                    else:
                        result.dropped["without_tokens"] += 1
            counts = {split: writer.close() for split, writer in writers.items()}
        for split, shard in counts.items():
            if shard.documents:
                result.shards[split] = shard
            else:
                for file in shard_files(shard.name):
                    (self._directory / file).unlink()
        return result

    def _kept_documents(self, task: Task, result: TaskResult) -> Iterator[Document]:
        for piece in task.slices:
            for document in read_documents(
                piece, self._recipe.corpora[piece.source.corpus], result.counts
            ):
                if not document.text.strip():
                    result.dropped["empty"] += 1
                elif len(document.text) < self._recipe.clean.min_chars:
                    result.dropped["too_short"] += 1
                else:
                    yield document

    def _encode(self, batch: Sequence[Document]) -> list[list[IdArray]]:
        """Return the sentences of each document as ids, those without any left out."""
        language = next(iter(self._recipe.corpora.values())).language
        texts = [split_sentences(document.text, language) for document in batch]
        ids = iter(self._encoder.encode([sentence for text in texts for sentence in text]))
        return [[array for array in (next(ids) for _ in text) if len(array)] for text in texts]

    def _split_of(self, document: Document) -> str:
        """Decide by the text itself: copies of a document are all on the same side."""
        share = int(key_of("split", self._recipe.seed, document.text)) / 2.0**64
        return "validation" if share < self._recipe.corpus.validation_share else "train"


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    chars = 0
    for document in documents:
        batch.append(document)
        chars += len(document.text)
        if chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
