"""The tokenizer of a recipe: loaded if its folder exists, made once if not."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_prep.config.schema import CorpusRecipe, TokenizerOptions
from data_prep.errors import UserError
from data_prep.locks import creation_lock
from data_prep.manifest import file_sha256, read_manifest
from data_prep.progress import log
from data_prep.readers.dispatch import read_documents
from data_prep.readers.listing import cut_into_tasks
from data_prep.readers.sources import Slice, Source
from data_prep.tokenizers.folder import (
    BERT_NAMES,
    LoadedTokenizer,
    load_tokenizer,
    read_backend,
    role_names,
    save_tokenizer,
)
from data_prep.tokenizers.sentencepiece import to_fast_tokenizer, train_sentencepiece
from data_prep.tokenizers.wordpiece import read_vocabulary, train_wordpiece

# Bytes of text per byte of a compressed file: Wikipedia and novels, usual settings.
_EXPANSION = {".gz": 2.7, ".zst": 2.9, ".xz": 3.4, ".bz2": 3.6, ".parquet": 2.0}


def ensure_tokenizer(recipe: CorpusRecipe, sources: Sequence[Source]) -> LoadedTokenizer:
    """Load the recipe's tokenizer, after making it if its folder does not exist.

    Of several processes that need it, on one node or several, one makes it while the others block.

    Raises:
        UserError: when the folder holds another tokenizer than the recipe describes.
    """
    options = recipe.tokenizer
    if options.path.exists():
        return _existing_tokenizer(options)
    with creation_lock(options.path) as locked:
        if options.path.exists():
            return _existing_tokenizer(options)
        _make_in_place(recipe, sources, locked)
    tokenizer = _existing_tokenizer(options)
    log(f"wrote {options.path}: {tokenizer.vocab_size:,} ids")
    return tokenizer


def sample_texts(recipe: CorpusRecipe, sources: Sequence[Source]) -> Iterator[str]:
    """Yield paragraphs for training: from each slice its share of `train_bytes`, from its start.

    Shares are proportional to the size of the text, which for a compressed file is estimated from
    its size on disk, so that plain and compressed corpora are covered alike. What a slice lacks of
    its share goes to no other slice. What its last paragraph exceeds the share by is taken off the
    slices after it, so that many small files do not yield a paragraph each.

    The choice depends on the input alone, and memory holds one document at a time.
    """
    pieces = [piece for pieces in cut_into_tasks(sources) for piece in pieces]
    share = recipe.tokenizer.train_bytes / max(1.0, sum(map(_text_bytes, pieces)))
    owed = 0.0
    for piece in pieces:
        owed = min(owed, 0.0) + share * _text_bytes(piece)
        if owed <= 0.0:
            continue
        for paragraph in _paragraphs(recipe, piece):
            owed -= len(paragraph.encode())
            yield paragraph
            if owed <= 0.0:
                break


def _text_bytes(piece: Slice) -> float:
    suffix = Path(piece.source.name).suffix
    return (piece.stop - piece.start) * _EXPANSION.get(suffix, 1.0)


def _paragraphs(recipe: CorpusRecipe, piece: Slice) -> Iterator[str]:
    for document in read_documents(piece, recipe.corpora[piece.source.corpus], Counter()):
        yield from document.text.split("\n")


def _existing_tokenizer(options: TokenizerOptions) -> LoadedTokenizer:
    tokenizer = load_tokenizer(options.path)
    made_with = read_manifest(options.path, "tokenizer", "make it again").get("options", {})
    for key, expected in _facts(options).items():
        if made_with.get(key) != expected:
            raise UserError(
                f"The tokenizer {options.path} exists and was made with {key} "
                f"{made_with[key]!r}, but tokenizer.{key} is {expected!r}: remove the folder, or "
                "choose another tokenizer.path."
            )
    return tokenizer


def _make_in_place(recipe: CorpusRecipe, sources: Sequence[Source], locked: bool) -> None:
    """Make the tokenizer beside its path and rename it, so that its folder is always complete."""
    path = recipe.tokenizer.path
    owner = "" if locked else f".{os.uname().nodename}.{os.getpid()}"
    working = path.with_name(f"{path.name}.partial{owner}")
    shutil.rmtree(working, ignore_errors=True)
    try:
        _make_tokenizer(recipe, sources, working)
        _move(working, path)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _move(working: Path, path: Path) -> None:
    try:
        working.replace(path)
    except OSError:
        # Without locks another process may have been first; its folder has the same contents.
        if not path.exists():
            raise


def _make_tokenizer(recipe: CorpusRecipe, sources: Sequence[Source], directory: Path) -> None:
    options = recipe.tokenizer
    names: Mapping[str, str] = BERT_NAMES
    if options.vocabulary is None:
        tokenizer = _train(recipe, sources)
    elif options.kind == "existing":
        tokenizer = read_backend(options.vocabulary / "tokenizer.json")
        names = role_names(options.vocabulary)
    elif options.kind == "wordpiece":
        tokenizer = read_vocabulary(options.vocabulary, options.lowercase)
    else:
        raise UserError(
            f"tokenizer.vocabulary {options.vocabulary} does not fit tokenizer.kind "
            f"{options.kind}, which is trained: leave it out, or set the kind to wordpiece (for a "
            "vocab.txt) or existing (for a tokenizer folder)."
        )
    save_tokenizer(
        tokenizer,
        directory,
        options.kind,
        names=names,
        facts={"options": _facts(options)},
    )


def _train(recipe: CorpusRecipe, sources: Sequence[Source]) -> Tokenizer:
    options = recipe.tokenizer
    started = time.monotonic()
    log(
        f"training a tokenizer ({options.kind}, {options.vocab_size:,} ids) on up to "
        f"{options.train_bytes / 1e6:,.1f} MB of text"
    )

    def texts() -> Iterable[str]:
        return sample_texts(recipe, sources)

    sizes: dict[str, Any] = options.model_dump(include={"vocab_size", "lowercase", "alphabet"})
    if options.kind in ("unigram", "bpe"):
        tokenizer = to_fast_tokenizer(train_sentencepiece(texts, kind=options.kind, **sizes))
    else:
        tokenizer = train_wordpiece(texts, **sizes)
    log(f"trained the tokenizer in {time.monotonic() - started:,.1f} s")
    if (found := tokenizer.get_vocab_size()) < options.vocab_size:
        log(f"the text gives only {found:,} ids: no further piece occurs twice")
    return tokenizer


def _facts(options: TokenizerOptions) -> dict[str, Any]:
    """Return the options that decide the ids; the paths of folders do not.

    A given vocabulary has its own size, an existing tokenizer its own casing.
    """
    left_out = {"path", "vocabulary", "backend"}
    if options.vocabulary:
        left_out |= {"vocab_size", "alphabet", "train_bytes"}
    if options.kind == "existing":
        left_out |= {"lowercase"}
    facts = options.model_dump(mode="json", exclude=left_out)
    if options.vocabulary:
        facts["vocabulary"] = file_sha256(_vocabulary_file(options))[:16]
    return facts


def _vocabulary_file(options: TokenizerOptions) -> Path:
    """Return the file whose content decides the ids of a given vocabulary."""
    assert options.vocabulary is not None
    existing = options.kind == "existing"
    path = options.vocabulary / "tokenizer.json" if existing else options.vocabulary
    if not path.is_file():
        raise UserError(f"There is no vocabulary {path}: correct tokenizer.vocabulary.")
    return path
