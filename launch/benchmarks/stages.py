"""The stages of preparation, one by one, as a benchmark calls them.

This is the only file of the benchmarks that knows the functions of `data_prep` which do the work.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from data_prep.config.schema import CorpusRecipe, InputOptions
from data_prep.corpus.shards import ShardWriter, token_type_for
from data_prep.filters.cleaning import Cleaner
from data_prep.readers.dispatch import read_documents
from data_prep.readers.listing import cut_into_tasks, list_sources
from data_prep.tokenize.encoder import EncodedTexts, TextEncoder
from data_prep.tokenize.sentence_rules import split_sentences
from data_prep.tokenizers.folder import load_tokenizer

# As many characters as a task tokenizes at once.
_BATCH_CHARS = 1 << 20
_SAMPLE = Path("sample")


def read_texts(paths: Sequence[Path], language: str, counts: Counter[str]) -> Iterator[str]:
    """Yield the documents of files and folders that are not empty; `sample` is the shipped one."""
    documents = "file" if tuple(paths) == (_SAMPLE,) else "blank_line"
    tree = {"paths": tuple(paths), "language": language, "documents": documents}
    options = InputOptions.model_validate(tree)
    for piece in (p for task in cut_into_tasks(list_sources({"text": options})) for p in task):
        for document in read_documents(piece, options, counts):
            if document.text.strip():
                yield document.text


def split_texts(texts: Sequence[str], language: str) -> list[list[str]]:
    """Return the sentences of each text; every side of a comparison cuts by this rule."""
    return [split_sentences(text, "zh" if language == "zh" else "en") for text in texts]


class Stages:
    """The work of one process of `prepare_data.py`, divided where its time can be measured."""

    def __init__(self, recipe: CorpusRecipe, directory: Path) -> None:
        tokenizer = load_tokenizer(recipe.tokenizer.path)
        token_type = token_type_for(tokenizer.vocab_size)
        self._recipe = recipe
        self._options = recipe.corpora["text"]
        self._cleaner = Cleaner(recipe.clean)
        self._encoder = TextEncoder(tokenizer.backend, token_type, self._options.language)
        self._writer = ShardWriter(directory, "train_00000", token_type)

    def read(self) -> Iterator[list[str]]:
        """Yield the documents of the recipe's input in batches."""
        batch: list[str] = []
        chars = 0
        for task in cut_into_tasks(list_sources(self._recipe.corpora)):
            for piece in task:
                for document in read_documents(piece, self._options, Counter()):
                    batch.append(document.text)
                    chars += len(document.text)
                    if chars >= _BATCH_CHARS:
                        yield batch
                        batch, chars = [], 0
        if batch:
            yield batch

    def clean(self, texts: Sequence[str]) -> list[str]:
        """Return the cleaned texts that are kept."""
        cleaned = [self._cleaner.clean(text) for text in texts]
        return [text for text in cleaned if not self._cleaner.reason_to_drop(text)]

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Return the sentences of the texts and their ids, which are found together."""
        return self._encoder.encode(texts)

    def write(self, encoded: EncodedTexts) -> None:
        """Append documents to the shard."""
        self._writer.add(encoded)

    def __enter__(self) -> "Stages":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
