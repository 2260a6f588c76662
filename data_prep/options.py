"""What a corpus recipe may say: the input, the tokenizer, the corpus, and how to work."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from data_prep.recipe import Options

Language = Literal["en", "zh"]


class InputOptions(Options):
    """Where the text is and how to read it."""

    path: Path | None = None
    """A file, or a folder read recursively; `sample` is the corpus that Stillhouse ships."""

    paths: tuple[Path, ...] = ()
    """Several files or folders, instead of `path`."""

    pattern: str = "*"
    """File names to read in folders, as a shell pattern; hidden files are never read."""

    kind: Literal["auto", "text", "jsonl", "wikiextractor"] = "auto"
    """The format; `auto` looks at how each file begins, because folders are often mixed."""

    documents: Literal["blank_line", "file"] = "blank_line"
    """Plain text only: what ends a document. Books want one file a chapter, and `file`."""

    newline: Literal["auto", "space", "paragraph"] = "auto"
    """What a single newline is. `auto`: a space in plain text, where prose is wrapped over
    lines; the end of a paragraph in the other formats, which do not wrap."""

    text_field: str = "text"
    """JSON lines only: the key that holds the text."""

    errors: Literal["strict", "replace"] = "strict"
    """Bytes that are not UTF-8: stop and name the place, or put U+FFFD and go on."""

    max_document_chars: int = Field(10_000_000, ge=1)
    """Characters. A longer document is refused: it is nearly always a file of another kind,
    and a document is the one thing that has to fit in memory."""

    language: Language = "en"
    """The rules that end a sentence: `en` for spaced scripts, `zh` for Chinese and Japanese."""

    @model_validator(mode="after")
    def _one_source(self) -> "InputOptions":
        if bool(self.path) == bool(self.paths):
            raise ValueError("give either input.path or input.paths.")
        return self

    @property
    def roots(self) -> tuple[Path, ...]:
        """The files and folders to read, whichever key named them."""
        return self.paths or ((self.path,) if self.path else ())


class TokenizerOptions(Options):
    """Which tokenizer to use, and how to train it when it does not exist yet."""

    path: Path
    """The tokenizer's folder: used when it exists, made when it does not."""

    kind: Literal["wordpiece", "existing"] = "wordpiece"
    """`wordpiece` trains one, or takes over a vocab.txt; `existing` copies a Hugging Face
    tokenizer folder, of whatever algorithm, as it is."""

    vocab_size: int = Field(16_384, ge=6)
    """Ids. A student's embedding is vocab_size x width, so a small corpus wants a small one."""

    lowercase: bool = True
    """Whether case and accents are dropped: smaller vocabulary, better on little data. An
    existing tokenizer keeps its own habit."""

    alphabet: int = Field(1_000, ge=1)
    """The most frequent characters to keep; rarer ones become [UNK]. 1,000 covers spaced
    scripts and leaves the ids to words; Chinese wants about 8,000."""

    vocabulary: Path | None = None
    """A vocab.txt (kind wordpiece) or a tokenizer folder (kind existing) to take over."""

    train_bytes: int = Field(100_000_000, ge=1)
    """Bytes of input to train on, taken evenly over the files: more hardly changes 30,000
    ids."""

    @model_validator(mode="after")
    def _existing_names_its_folder(self) -> "TokenizerOptions":
        if self.kind == "existing" and self.vocabulary is None:
            raise ValueError("kind 'existing' needs tokenizer.vocabulary, a tokenizer folder.")
        return self


class CorpusOptions(Options):
    """The token shards to write."""

    path: Path
    """The corpus folder; it appears only when it is complete."""

    validation_share: float = Field(0.01, ge=0.0, lt=1.0)
    """Share of documents held out; a document's own text decides, so copies never straddle."""

    min_document_chars: int = Field(0, ge=0)
    """Characters. Shorter documents are dropped: stubs teach nothing about what comes next."""


class CorpusRecipe(Options):
    """Everything that launch/prepare_data.py accepts."""

    input: InputOptions
    tokenizer: TokenizerOptions
    corpus: CorpusOptions

    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """Processes; the default is every core. The result is the same for any number."""

    seed: int = 0
    """Draws the validation documents."""

    def facts(self) -> dict[str, Any]:
        """Return the options that decide the contents of the corpus, as its manifest keeps them.

        Where things lie and how many processes worked is left out: the same text gives the same
        manifest on another machine.
        """
        return {
            "input": self.input.model_dump(mode="json", exclude={"path", "paths"}),
            "corpus": self.corpus.model_dump(mode="json", exclude={"path"}),
            "seed": self.seed,
        }
