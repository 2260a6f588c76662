"""The tokenizer of a recipe: the one that is there, or a new one, made once."""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_prep.corpus import read_documents
from data_prep.errors import UserError
from data_prep.manifest import file_sha256, read_manifest
from data_prep.options import CorpusRecipe, TokenizerOptions
from data_prep.progress import log
from data_prep.sources import Slice, Source, cut_into_tasks
from data_prep.tokenizer import (
    BERT_NAMES,
    LoadedTokenizer,
    load_tokenizer,
    read_backend,
    role_names,
    save_tokenizer,
)
from data_prep.wordpiece import read_vocabulary, train_wordpiece


def ensure_tokenizer(recipe: CorpusRecipe, sources: Sequence[Source]) -> LoadedTokenizer:
    """Load the recipe's tokenizer, after making it if its folder does not exist.

    Raises:
        UserError: when the folder holds another tokenizer than the recipe describes.
    """
    options = recipe.tokenizer
    if options.path.exists():
        return _existing_tokenizer(options)
    working = options.path.with_name(options.path.name + ".partial")
    shutil.rmtree(working, ignore_errors=True)
    try:
        _make_tokenizer(recipe, sources, working)
        working.replace(options.path)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    tokenizer = load_tokenizer(options.path)
    log(f"wrote {options.path}: {tokenizer.vocab_size:,} ids")
    return tokenizer


def sample_texts(recipe: CorpusRecipe, sources: Sequence[Source]) -> Iterator[str]:
    """Yield paragraphs for training: from each slice its share of `train_bytes`, from its start.

    The choice depends on the input alone, and memory holds one document at a time.
    """
    share = min(1.0, recipe.tokenizer.train_bytes / sum(source.size for source in sources))
    for piece in (piece for pieces in cut_into_tasks(sources) for piece in pieces):
        yield from _first_paragraphs(recipe, piece, share * (piece.stop - piece.start))


def _first_paragraphs(recipe: CorpusRecipe, piece: Slice, quota_bytes: float) -> Iterator[str]:
    for document in read_documents(piece, recipe.corpora[piece.source.corpus], Counter()):
        for paragraph in document.text.split("\n"):
            if quota_bytes <= 0:
                return
            quota_bytes -= len(paragraph.encode())
            yield paragraph


def _existing_tokenizer(options: TokenizerOptions) -> LoadedTokenizer:
    tokenizer = load_tokenizer(options.path)
    made_with = read_manifest(options.path, "tokenizer", "make it again").get("options", {})
    for key, wanted in _facts(options).items():
        if made_with.get(key) != wanted:
            raise UserError(
                f"The tokenizer {options.path} exists and was made with {key} "
                f"{made_with[key]!r}, but tokenizer.{key} is {wanted!r}: remove the folder, or "
                "choose another tokenizer.path."
            )
    return tokenizer


def _make_tokenizer(recipe: CorpusRecipe, sources: Sequence[Source], directory: Path) -> None:
    options = recipe.tokenizer
    directory.parent.mkdir(parents=True, exist_ok=True)
    names: Mapping[str, str] = BERT_NAMES
    if options.vocabulary is None:
        tokenizer = _train(recipe, sources)
    elif options.kind == "existing":
        tokenizer = read_backend(options.vocabulary / "tokenizer.json")
        names = role_names(options.vocabulary)
    else:
        tokenizer = read_vocabulary(options.vocabulary, options.lowercase)
    save_tokenizer(
        tokenizer,
        directory,
        options.kind,
        names=names,
        facts={"options": _facts(options)},
    )


def _train(recipe: CorpusRecipe, sources: Sequence[Source]) -> Tokenizer:
    options = recipe.tokenizer
    log(f"training a WordPiece vocabulary of {options.vocab_size:,} ids")

    def texts() -> Iterable[str]:
        return sample_texts(recipe, sources)

    tokenizer = train_wordpiece(
        texts,
        vocab_size=options.vocab_size,
        lowercase=options.lowercase,
        alphabet=options.alphabet,
    )
    if (found := tokenizer.get_vocab_size()) < options.vocab_size:
        log(f"the text gave only {found:,} ids: no more pieces occur twice")
    return tokenizer


def _facts(options: TokenizerOptions) -> dict[str, Any]:
    """Return the options that decide the ids; where a folder lies does not.

    A vocabulary that was taken over brings its own size, an existing tokenizer its own case.
    """
    left_out = {"path", "vocabulary"}
    if options.vocabulary:
        left_out |= {"vocab_size", "alphabet", "train_bytes"}
    if options.kind == "existing":
        left_out |= {"lowercase"}
    facts = options.model_dump(mode="json", exclude=left_out)
    if options.vocabulary:
        facts["vocabulary"] = file_sha256(_vocabulary_file(options))[:16]
    return facts


def _vocabulary_file(options: TokenizerOptions) -> Path:
    """Return the file whose content decides the ids of a vocabulary that is taken over."""
    assert options.vocabulary is not None
    existing = options.kind == "existing"
    path = options.vocabulary / "tokenizer.json" if existing else options.vocabulary
    if not path.is_file():
        raise UserError(f"There is no vocabulary {path}: correct tokenizer.vocabulary.")
    return path
