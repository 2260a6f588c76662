"""The schema of a corpus recipe: input, cleaning, tokenizer (`tokenizer.py`), corpus, workers."""

import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import (
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from data_prep.config.loader import Options
from data_prep.config.tokenizer import TokenizerOptions
from data_prep.languages import LANGUAGES


def _read_location(value: Any, read_path: ValidatorFunctionWrapHandler) -> Any:
    """Return an address as it is, because a path has no `//`; that of a local file is its path."""
    if not isinstance(value, str) or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
        return read_path(value)
    if not value.lower().startswith("file://"):
        return value
    return Path(unquote(urlsplit(value).path))


if TYPE_CHECKING:
    InputPath = Path | str
else:
    InputPath = Annotated[
        Path, WrapValidator(_read_location), PlainSerializer(str, when_used="json-unless-none")
    ]


class InputOptions(Options):
    """Where the text of one corpus is and how to read it."""

    path: InputPath | None = Field(
        None,
        description="A file, a folder read recursively, or a glob such as `text/*.jsonl.zst`; "
        "`sample` is the corpus that Stillhouse ships. Also an address, s3://, gs://, hf:// or "
        "https://. Names ending in .gz, .zst, .xz and .bz2 are decompressed as a stream.",
    )
    paths: tuple[InputPath, ...] = Field((), description="Several of these, instead of `path`.")
    dataset: str | None = Field(
        None,
        description="Instead of a path: a hub name or a folder that `datasets.load_dataset` opens, "
        "read as a stream.",
    )
    subset: str | None = Field(
        None, description="Only with `dataset`: its configuration, such as `20231101.en`."
    )
    split: str = Field("train", description="Only with `dataset`: the split to read.")
    weight: float = Field(
        1.0,
        gt=0,
        description="How often an epoch takes each document, on average: with 0.5 successive "
        "epochs take alternate halves.",
    )
    pattern: str = Field(
        "*",
        description="File names to read in folders, as a shell pattern. Hidden files, names that "
        "begin with _, and a README or LICENSE beside data are passed over unless it names them.",
    )
    kind: Literal["auto", "text", "jsonl", "json", "csv", "wikiextractor", "parquet", "arrow"] = (
        Field(
            "auto",
            description="The format; `auto` detects it from the beginning of each file, because "
            "folders are often mixed. `json` is an array of records, or records over several "
            "lines; `csv` is TSV as well.",
        )
    )
    documents: Literal["blank_line", "line", "file"] = Field(
        "blank_line",
        description="Plain text only: what ends a document. For books: one file a chapter, and "
        "`file`.",
    )
    encoding: str = Field(
        "auto",
        description="Of text, JSON and CSV: `auto` is UTF-8, and UTF-16 or UTF-32 where a file "
        "shows it; or a name such as `cp1252`, `gb18030`, `shift_jis`. Files in other encodings "
        "than UTF-8 are not cut into tasks.",
    )
    newline: Literal["auto", "space", "paragraph"] = Field(
        "auto",
        description="What a single newline is. `auto`: a space in plain text, where prose is "
        "wrapped over lines; the end of a paragraph in the other formats, which do not wrap.",
    )
    text_field: str = Field(
        "text",
        description="JSON, CSV, Parquet, Arrow and datasets: the field that holds the text, a "
        "string or a list of paragraphs; `meta.text` is the field `text` inside of `meta`.",
    )
    errors: Literal["strict", "replace"] = Field(
        "strict",
        description="Bytes that are not UTF-8: stop and name the position, or replace them by "
        "U+FFFD, which `clean.control` then removes.",
    )
    max_bad_records: int = Field(
        0,
        ge=0,
        description="How many broken records of a corpus (not JSON, without the text field, rows "
        "of the wrong length) are skipped and counted before it is refused. Nulls are counted as "
        "`null_text`, without a limit.",
    )
    max_document_chars: int = Field(
        10_000_000,
        ge=1,
        description="Characters. A longer document need not fit into memory, see `long_documents`.",
    )
    long_documents: Literal["divide", "drop", "refuse"] = Field(
        "divide",
        description="Above `max_document_chars`: cut at a paragraph, drop, or stop; the first two "
        "are counted.",
    )
    language: str = Field(
        "en",
        description="ISO 639 code of the rules that end a sentence: marks, abbreviations, ordinals "
        f"of one of {', '.join(sorted(LANGUAGES))}.",
    )
    sentences: str | None = Field(
        None,
        description="Your own splitter instead of these rules: `package.module:function`, from a "
        "paragraph to a list of sentences.",
    )

    @field_validator("language")
    @classmethod
    def _language_has_rules(cls, language: str) -> str:
        if language not in LANGUAGES:
            near = difflib.get_close_matches(language, LANGUAGES, n=3, cutoff=0.0)
            raise ValueError(
                f"there are no sentence rules for the language {language!r}: take "
                f"the code of a related one (near in spelling are {', '.join(near)}), or give a "
                "function as input.sentences"
            )
        return language

    @model_validator(mode="after")
    def _one_source(self) -> "InputOptions":
        if sum(map(bool, (self.path, self.paths, self.dataset))) != 1:
            raise ValueError("give one of path, paths and dataset.")
        return self

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        if name != "auto":
            try:
                "".encode(name)
            except LookupError as error:
                raise ValueError(
                    f"{name!r} is not an encoding; known are utf-8, cp1252, gb18030, shift_jis and "
                    "the others of Python's codecs."
                ) from error
        return name

    def left_out(self) -> set[str]:
        """Return the keys that are not in the manifest of a corpus.

        `encoding` is there only where it is set, so that corpora from before the key stay valid.
        """
        return {"path", "paths"} | ({"encoding"} if self.encoding == "auto" else set())

    @property
    def roots(self) -> tuple[Path | str, ...]:
        """The files, folders, globs and addresses to read, from `path` or `paths`."""
        return self.paths or ((self.path,) if self.path else ())


class CleanOptions(Options):
    """What is normalised and what is dropped before sentences are split; all of it is counted."""

    unicode: Literal["none", "NFC", "NFKC"] = Field(
        "NFC",
        description="Normal form of the text. NFKC also replaces ligatures and full-width letters.",
    )
    control: bool = Field(True, description="Whether control characters, and U+FFFD, are removed.")
    min_chars: int = Field(
        0,
        ge=0,
        description="Characters. Shorter documents are dropped: stubs have no context to learn "
        "from.",
    )
    max_chars: int | None = Field(
        None, ge=1, description="Characters. Longer documents are dropped; null keeps them."
    )
    min_paragraph_chars: int = Field(
        0,
        ge=0,
        description="Characters. Shorter paragraphs are dropped: headings, menus, captions.",
    )
    duplicates: Literal["keep", "documents", "paragraphs", "both"] = Field(
        "documents",
        description="Which exact copies are dropped; the first in the input is kept.",
    )
    near_duplicates: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="Jaccard similarity of 5-word shingles from which a document is a duplicate of "
        "an earlier one (MinHash); 0 is off. Needs `pip install rensa`.",
    )
    keep: str | None = Field(
        None,
        description="Your own filter, `package.module:function`, from a document's text to bool: a "
        "language identifier, a quality score.",
    )
    evaluation: tuple[Path, ...] = Field(
        (),
        description="Files whose text must not be trained on: documents that share "
        "`evaluation_ngram` consecutive tokens with them are dropped.",
    )
    evaluation_ngram: int = Field(
        13,
        ge=4,
        le=64,
        description="Tokens. 13 as in GPT-3 (arXiv 2005.14165, appendix C), which counts words.",
    )


class CorpusOptions(Options):
    """The token shards to write."""

    path: Path = Field(description="The corpus folder; it appears only when it is complete.")
    validation_share: float = Field(
        0.01,
        gt=0.0,
        lt=1.0,
        description="Share of documents held out, drawn by a hash of the text, so that copies of a "
        "document are in the same split.",
    )


class CorpusRecipe(Options):
    """Everything that launch/prepare_data.py accepts."""

    input: InputOptions | None = Field(None, description="One corpus.")
    inputs: dict[str, InputOptions] = Field(
        default_factory=dict,
        description="Several corpora, instead of `input`: a name for each, and under it the keys "
        "of `input`, as in `inputs.wiki.path`.",
    )
    tokenizer: TokenizerOptions
    clean: CleanOptions = CleanOptions()
    corpus: CorpusOptions
    workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="Processes; the default is every core. The result is the same for any number.",
    )
    seed: int = Field(0, description="Of the draw of validation documents.")

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
        """Return the options that decide the contents of the corpus, for its manifest.

        Paths and the number of processes are left out: the same text gives the same manifest on
        another machine.
        """
        return {
            "inputs": {
                name: options.model_dump(mode="json", exclude=options.left_out())
                for name, options in self.corpora.items()
            },
            "clean": self.clean.model_dump(mode="json", exclude={"evaluation"}),
            "corpus": self.corpus.model_dump(mode="json", exclude={"path"}),
            "seed": self.seed,
        }
