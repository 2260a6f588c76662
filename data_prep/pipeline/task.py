"""One task: a few slices of input become the shards of their documents.

The output of a task depends on its slices, the options and the tokenizer, not on earlier tasks in
the same process; so tasks may run in any process and in any order.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.config.schema import CorpusRecipe, InputOptions
from data_prep.corpus.shards import Int64Array, token_type_for
from data_prep.counter_rng import UInt64Array, key_of, uniform
from data_prep.dedup.exact import keys_of
from data_prep.dedup.key_index import Layout
from data_prep.dedup.minhash import NearDuplicates
from data_prep.filters.cleaning import Cleaner
from data_prep.filters.decontamination import EvaluationText
from data_prep.filters.plugins import load_plugin
from data_prep.pipeline.task_output import Part, PartWriter
from data_prep.readers.dispatch import read_documents
from data_prep.readers.sources import Slice
from data_prep.text_batches import batch_by_chars
from data_prep.tokenize.backends import IdArray
from data_prep.tokenize.encoder import EncodedTexts, TextEncoder
from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer

# Documents are encoded in batches of about this many characters.
_BATCH_CHARS = 1 << 20
# A new part begins after this many tokens, so that reading one takes bounded memory.
MAX_PART_TOKENS = 1 << 24
# A paragraph is encoded in one call; a longer one is split at a space.
_MAX_PARAGRAPH_CHARS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Task:
    """Slices of one corpus to read in order; `index` is in the names of the parts."""

    index: int
    slices: Sequence[Slice]

    @property
    def size(self) -> int:
        """Input bytes."""
        return sum(piece.stop - piece.start for piece in self.slices)


@dataclass(kw_only=True)
class TaskResult:
    """The parts that a task wrote, and how many documents it changed or dropped, by reason."""

    task: Task
    parts: list[Part] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class TaskRunner:
    """Runs tasks in one process."""

    def __init__(self, recipe: CorpusRecipe, directory: Path) -> None:
        self._recipe = recipe
        self._directory = directory
        tokenizer = load_tokenizer(recipe.tokenizer.path)
        self._tokenizer = tokenizer
        self._token_type = token_type_for(tokenizer.vocab_size)
        self._cleaner = Cleaner(recipe.clean)
        self._encoders: dict[tuple[str, str | None], TextEncoder] = {}
        self._evaluation = self._read_evaluation()
        threshold = recipe.clean.near_duplicates
        self._near = NearDuplicates(threshold) if threshold else None

    def run(self, task: Task) -> TaskResult:
        """Write the parts of a task.

        Raises:
            UserError: when the input cannot be read with the options of the recipe.
        """
        result = TaskResult(task=task)
        batches = batch_by_chars(self._documents(task, result.counts), _BATCH_CHARS)
        batch = next(batches, None)
        while batch is not None:
            writer = self._open_part(task, len(result.parts))
            try:
                while batch is not None and writer.num_tokens < MAX_PART_TOKENS:
                    self._write(batch, task, writer, result.counts)
                    batch = next(batches, None)
                result.parts.append(writer.close())
            finally:
                writer.release()
        return result

    def _open_part(self, task: Task, number: int) -> PartWriter:
        name = f"{task.index:05d}_{number:03d}"
        corpus = task.slices[0].source.corpus
        with_keys = finds_duplicates(self._recipe)
        return PartWriter(self._directory, name, self._token_type, corpus, with_keys)

    def _documents(self, task: Task, counts: Counter[str]) -> Iterator[str]:
        """Yield the cleaned texts of a task; count those that are dropped."""
        for piece in task.slices:
            options = self._recipe.corpora[piece.source.corpus]
            texts = (document.text for document in read_documents(piece, options, counts))
            for batch in batch_by_chars(texts, _BATCH_CHARS):
                for text in self._cleaner.clean_all(batch, counts):
                    if reason := self._cleaner.reason_to_drop(text):
                        counts[reason] += 1
                    else:
                        yield _with_short_paragraphs(text)

    def _write(
        self, texts: Sequence[str], task: Task, writer: PartWriter, counts: Counter[str]
    ) -> None:
        encoded = self._encoder(task.slices[0].source.corpus).encode(texts)
        kept = self._kept(encoded, counts)
        counts["altered"] += int((encoded.altered & kept).sum())
        documents = encoded.keep(np.repeat(kept, np.diff(encoded.documents)))
        if not documents.num_documents:
            return
        chosen = [text for text, keep in zip(texts, kept, strict=True) if keep]
        keys = keys_of(chosen)
        writer.add(
            documents,
            _layout(encoded, kept, self._splits(keys)),
            document_keys=keys,
            near_keys=[self._near.keys(text) for text in chosen] if self._near else [],
            paragraph_keys=self._paragraph_keys(chosen),
        )

    def _paragraph_keys(self, texts: Sequence[str]) -> UInt64Array:
        if self._recipe.clean.duplicates not in ("paragraphs", "both"):
            return np.zeros(0, np.uint64)
        return keys_of([paragraph for text in texts for paragraph in text.split("\n")])

    def _kept(self, encoded: EncodedTexts, counts: Counter[str]) -> npt.NDArray[np.bool_]:
        """Return a mask of the documents with tokens that do not overlap the evaluation files."""
        bounds = encoded.sentences[encoded.documents]
        kept: npt.NDArray[np.bool_] = np.diff(bounds) > 0
        counts["without_tokens"] += int((~kept).sum())
        if self._evaluation is not None:
            overlapping = self._evaluation.overlapping(encoded.tokens, bounds)
            counts["evaluation"] += int(overlapping.sum())
            kept &= ~overlapping
        return kept

    def _splits(self, keys: UInt64Array) -> Int64Array:
        """Draw the split by the text's key, so that copies of a document are in the same split."""
        shares = uniform(key_of("split", self._recipe.seed), keys)
        return (shares < self._recipe.corpus.validation_share).astype(np.int64)

    def _encoder(self, corpus: str) -> TextEncoder:
        """Return the encoder of a corpus; corpora with the same sentence rules share one."""
        options = self._recipe.corpora[corpus]
        rules = (options.language, options.sentences)
        if rules not in self._encoders:
            self._encoders[rules] = open_encoder(self._recipe, options, self._tokenizer)
        return self._encoders[rules]

    def _read_evaluation(self) -> EvaluationText | None:
        clean = self._recipe.clean
        if not clean.evaluation:
            return None
        encoder = self._encoder(next(iter(self._recipe.corpora)))

        def encode(texts: Sequence[str]) -> list[IdArray]:
            encoded = encoder.encode([self._cleaner.clean(text) for text in texts])
            bounds = encoded.sentences[encoded.documents]
            return [encoded.tokens[start:stop] for start, stop in pairwise(bounds)]

        return EvaluationText(clean.evaluation, clean.evaluation_ngram, encode)


def open_encoder(
    recipe: CorpusRecipe, options: InputOptions, tokenizer: LoadedTokenizer
) -> TextEncoder:
    """Return the encoder of a corpus of a recipe."""
    splitter = load_plugin(options.sentences, "input.sentences") if options.sentences else None
    return TextEncoder(
        tokenizer.backend,
        token_type_for(tokenizer.vocab_size),
        options.language,
        splitter,
        recipe.tokenizer.backend,
    )


def finds_duplicates(recipe: CorpusRecipe) -> bool:
    """Tell whether duplicates are dropped, which needs a key index for each part."""
    return recipe.clean.duplicates != "keep" or recipe.clean.near_duplicates > 0


def _layout(encoded: EncodedTexts, kept: npt.NDArray[np.bool_], splits: Int64Array) -> Layout:
    """Return the layout of the kept texts and their paragraphs."""
    sentences = np.diff(encoded.paragraphs)[np.repeat(kept, encoded.sizes)]
    return Layout(splits=splits, paragraphs=encoded.sizes[kept], sentences=sentences)


def _with_short_paragraphs(text: str) -> str:
    """Split paragraphs longer than `_MAX_PARAGRAPH_CHARS`, at a space if there is one."""
    if len(text) <= _MAX_PARAGRAPH_CHARS:
        return text
    pieces: list[str] = []
    for paragraph in text.split("\n"):
        while len(paragraph) > _MAX_PARAGRAPH_CHARS:
            space = paragraph.rfind(" ", 1, _MAX_PARAGRAPH_CHARS)
            cut = space if space > 0 else _MAX_PARAGRAPH_CHARS
            pieces.append(paragraph[:cut])
            paragraph = paragraph[cut:].lstrip(" ")
        pieces.append(paragraph)
    return "\n".join(pieces)
