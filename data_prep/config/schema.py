"""What a corpus recipe may say: the input, the tokenizer, the corpus, and how to work."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from data_prep.config.loader import Options

Language = Literal["en", "zh"]


class InputOptions(Options):
    """Where the text of one corpus is and how to read it."""

    path: Path | None = None
    """A file, a folder read recursively, or a glob such as `text/*.jsonl.zst`; `sample` is the
    corpus that Stillhouse ships. Names ending in .gz, .zst and .xz are decompressed as a stream."""

    paths: tuple[Path, ...] = ()
    """Several of these, instead of `path`."""

    dataset: str | None = None
    """A hub name or a folder that `datasets.load_dataset` opens, read as a stream, instead."""

    subset: str | None = None
    """Only with `dataset`: its configuration, such as `20231101.en`."""

    split: str = "train"
    """Only with `dataset`: the split to read."""

    weight: float = Field(1.0, gt=0)
    """How often an epoch visits each document, on average: 0.5 takes another half every time."""

    pattern: str = "*"
    """File names to read in folders, as a shell pattern; hidden files are never read."""

    kind: Literal["auto", "text", "jsonl", "wikiextractor", "parquet", "arrow"] = "auto"
    """The format; `auto` looks at how each file begins, because folders are often mixed."""

    documents: Literal["blank_line", "file"] = "blank_line"
    """Plain text only: what ends a document. Books want one file a chapter, and `file`."""

    newline: Literal["auto", "space", "paragraph"] = "auto"
    """What a single newline is. `auto`: a space in plain text, where prose is wrapped over
    lines; the end of a paragraph in the other formats, which do not wrap."""

    text_field: str = "text"
    """JSON lines, Parquet, Arrow and datasets: the field that holds the text."""

    errors: Literal["strict", "replace"] = "strict"
    """Bytes that are not UTF-8: stop and name the place, or put U+FFFD and go on."""

    max_bad_records: int = Field(0, ge=0)
    """Broken JSON lines, and records without text, that are skipped and counted before the
    input is refused."""

    max_document_chars: int = Field(10_000_000, ge=1)
    """Characters. A longer document does not have to fit into memory, see `long_documents`."""

    long_documents: Literal["divide", "drop", "refuse"] = "divide"
    """Above `max_document_chars`: cut at a paragraph, leave out, or stop; the first two count."""

    language: Language = "en"
    """The rules that end a sentence: `en` for spaced scripts, `zh` for Chinese and Japanese."""

    sentences: str | None = None
    """Your own splitter instead of these rules: `package.module:function`, from a paragraph to
    a list of sentences."""

    @model_validator(mode="after")
    def _one_source(self) -> "InputOptions":
        if sum(map(bool, (self.path, self.paths, self.dataset))) != 1:
            raise ValueError("give one of path, paths and dataset.")
        return self

    @property
    def roots(self) -> tuple[Path, ...]:
        """The files, folders and globs to read, whichever key named them."""
        return self.paths or ((self.path,) if self.path else ())


class CleanOptions(Options):
    """What is mended and what is left out before sentences are cut; all of it is counted."""

    unicode: Literal["none", "NFC", "NFKC"] = "NFC"
    """Normal form of the text. NFKC also replaces ligatures and full-width letters."""

    control: bool = True
    """Whether control characters, and U+FFFD, are removed."""

    min_chars: int = Field(0, ge=0)
    """Characters. Shorter documents are dropped: stubs teach nothing about what comes next."""

    max_chars: int | None = Field(None, ge=1)
    """Characters. Longer documents are dropped; null keeps them."""

    min_paragraph_chars: int = Field(0, ge=0)
    """Characters. Shorter paragraphs are dropped: headings, menus, captions."""

    duplicates: Literal["keep", "documents", "paragraphs", "both"] = "documents"
    """Which exact copies are dropped, wherever in the input the first one is."""

    near_duplicates: float = Field(0.0, ge=0.0, lt=1.0)
    """Jaccard similarity of 5-word shingles from which a document is a copy of an earlier one
    (MinHash); 0 is off. Needs `pip install rensa`."""

    keep: str | None = None
    """Your own filter, `package.module:function`, from a document's text to bool: a language
    identifier, a quality score."""

    evaluation: tuple[Path, ...] = ()
    """Files whose text must not be trained on: documents that share `evaluation_ngram`
    consecutive tokens with them are dropped."""

    evaluation_ngram: int = Field(13, ge=4, le=64)
    """Tokens. 13 as in GPT-3 (arXiv 2005.14165, appendix C), which counts words."""


class TokenizerOptions(Options):
    """Which tokenizer to use, and how to train it when it does not exist yet."""

    path: Path
    """The tokenizer's folder: used when it exists, made when it does not."""

    kind: Literal["wordpiece", "unigram", "bpe", "existing"] = "wordpiece"
    """`wordpiece` trains one, or takes over a vocab.txt; `unigram` and `bpe` are trained by
    SentencePiece; `existing` copies a Hugging Face tokenizer folder, of whatever algorithm."""

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


class CorpusRecipe(Options):
    """Everything that launch/prepare_data.py accepts."""

    input: InputOptions | None = None
    """One corpus."""

    inputs: dict[str, InputOptions] = Field(default_factory=dict)
    """Several, instead of `input`: a name for each, and under it the keys of `input`, as in
    `inputs.wiki.path`."""

    tokenizer: TokenizerOptions
    clean: CleanOptions = CleanOptions()
    corpus: CorpusOptions

    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """Processes; the default is every core. The result is the same for any number."""

    seed: int = 0
    """Draws the validation documents."""

    @model_validator(mode="after")
    def _some_input(self) -> "CorpusRecipe":
        if bool(self.input) == bool(self.inputs):
            raise ValueError("give either input or inputs, a group of corpora by name.")
        return self

    @property
    def corpora(self) -> dict[str, InputOptions]:
        """The corpora by name, in the order of the recipe; a single `input` is called `text`."""
        return self.inputs or ({"text": self.input} if self.input else {})

    def facts(self) -> dict[str, Any]:
        """Return the options that decide the contents of the corpus, as its manifest keeps them.

        Where things lie and how many processes worked is left out: the same text gives the same
        manifest on another machine.
        """
        return {
            "inputs": {
                name: options.model_dump(mode="json", exclude={"path", "paths"})
                for name, options in self.corpora.items()
            },
            "clean": self.clean.model_dump(mode="json", exclude={"evaluation"}),
            "corpus": self.corpus.model_dump(mode="json", exclude={"path"}),
            "seed": self.seed,
        }
