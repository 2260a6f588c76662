"""The tokenizer of a recipe: loaded if its folder exists, made once if not."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from data_prep.config.schema import CorpusRecipe
from data_prep.config.tokenizer import TokenizerOptions
from data_prep.disk import clear_disk_errors
from data_prep.errors import UserError
from data_prep.hub import DESCRIPTION, fetch, find_cached, hub_name
from data_prep.locks import creation_lock
from data_prep.manifest import MANIFEST, file_sha256, read_manifest
from data_prep.progress import log
from data_prep.readers.sources import Source
from data_prep.tokenizers.folder import BACKEND, LoadedTokenizer, load_tokenizer, save_tokenizer
from data_prep.tokenizers.foreign.adoption import VOCABULARY, adopt_tokenizer, check_same_ids
from data_prep.tokenizers.roles import CONFIG
from data_prep.tokenizers.sample import sample_texts
from data_prep.tokenizers.sentencepiece import to_fast_tokenizer, train_sentencepiece
from data_prep.tokenizers.wordpiece import read_vocabulary, train_wordpiece

_HUB_NAME = "vocabulary_name"
_DEFAULTS = {name: field.default for name, field in TokenizerOptions.model_fields.items()}


def ensure_tokenizer(recipe: CorpusRecipe, sources: Sequence[Source]) -> LoadedTokenizer:
    """Load the recipe's tokenizer, after making it if its folder does not exist.

    Of several processes that need it, on one node or several, one makes it while the others block.

    Raises:
        UserError: when the folder holds another tokenizer than the recipe describes.
    """
    options = recipe.tokenizer
    if options.path.exists():
        return _existing_tokenizer(options)
    with clear_disk_errors(options.path), creation_lock(options.path) as locked:
        if options.path.exists():
            return _existing_tokenizer(options)
        _make_in_place(recipe, sources, locked)
    tokenizer = _existing_tokenizer(options)
    log(f"wrote {options.path}: {tokenizer.vocab_size:,} ids")
    return replace(tokenizer, made_now=True)


def _with_local_vocabulary(options: TokenizerOptions) -> TokenizerOptions:
    """Return the options with a vocabulary of the hub as a folder of its cache."""
    if (name := _hub_name(options)) is None:
        return options
    return options.model_copy(update={"vocabulary": fetch(name, DESCRIPTION)})


def _hub_name(options: TokenizerOptions) -> str | None:
    return hub_name(options.vocabulary) if options.vocabulary else None


@contextlib.contextmanager
def tokenizer_of_build(
    recipe: CorpusRecipe, sources: Sequence[Source]
) -> Iterator[LoadedTokenizer]:
    """Yield the recipe's tokenizer, and remove it again if the build is refused.

    Only a tokenizer that this process made is removed, and not where the machine failed (a full
    disk): the next build would train the same one. The tasks of an array never remove it, because
    others use it.
    """
    tokenizer = ensure_tokenizer(recipe, sources)
    try:
        yield tokenizer
    except UserError as error:
        if tokenizer.made_now and not isinstance(error.__cause__, OSError):
            _discard(tokenizer.path)
        raise


def _discard(path: Path) -> None:
    discarded = path.with_name(f"{path.name}.discarded.{os.uname().nodename}.{os.getpid()}")
    path.rename(discarded)
    shutil.rmtree(discarded)
    log(f"removed {path}, which was made for this input")


def _existing_tokenizer(options: TokenizerOptions) -> LoadedTokenizer:
    if not (options.path / MANIFEST).is_file():
        raise UserError(
            f"{options.path} exists and is no tokenizer that prepare_data.py made: choose another "
            f"tokenizer.path, or take it over with tokenizer.vocabulary={options.path}."
        )
    tokenizer = load_tokenizer(options.path)
    manifest = read_manifest(options.path, "tokenizer", "make it again")
    if manifest.get("options") is None:
        return tokenizer
    wanted, made_with = _comparable_facts(options, manifest)
    for key, expected in wanted.items():
        # An option that is newer than the tokenizer had the effect of its default.
        found = made_with.get(key, _DEFAULTS.get(key, expected))
        if found != expected:
            raise UserError(
                f"The tokenizer {options.path} exists and was made with {key} "
                f"{found!r}, but tokenizer.{key} is {expected!r}: remove the folder, or "
                "choose another tokenizer.path."
            )
    return tokenizer


def _comparable_facts(
    options: TokenizerOptions, manifest: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of a recipe and those of a tokenizer, without the network where possible.

    A vocabulary of the hub that is not in its cache, as on a node without network, is compared by
    its name; it is fetched only if the tokenizer was made of none.
    """
    made_with, made_of = manifest["options"], manifest.get(_HUB_NAME)
    if (name := _hub_name(options)) is None:
        return _facts(options), made_with
    cached = find_cached(name)
    # Other programs cache parts of a repository, but of its files this one is preferred.
    if cached is not None and (cached / BACKEND).is_file():
        return _facts(options.model_copy(update={"vocabulary": cached})), made_with
    if made_of is None:
        return _facts(_with_local_vocabulary(options)), made_with
    expected = {"kind": effective_kind(options), "vocabulary": name}
    return expected, {**made_with, "vocabulary": made_of}


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
    # A vocabulary of the hub is downloaded here alone: a tokenizer that is made needs no network.
    options = _with_local_vocabulary(recipe.tokenizer)
    facts: dict[str, Any] = {"options": _facts(options)}
    if (name := _hub_name(recipe.tokenizer)) is not None:
        facts[_HUB_NAME] = name
    kind = effective_kind(options)
    if kind == "existing":
        assert options.vocabulary is not None
        adopted = adopt_tokenizer(options.vocabulary)
        save_tokenizer(adopted.backend, directory, kind, names=adopted.names, facts=facts)
        check_same_ids(adopted, directory)
    elif options.vocabulary is not None:
        tokenizer = read_vocabulary(options.vocabulary, options.lowercase, options.strip_accents)
        save_tokenizer(tokenizer, directory, kind, facts=facts)
    else:
        save_tokenizer(_train(recipe, sources), directory, kind, facts=facts)


def effective_kind(
    options: TokenizerOptions,
) -> Literal["wordpiece", "unigram", "bpe", "existing"]:
    """Return the kind of a recipe; a vocabulary decides it, whatever `tokenizer.kind` is.

    Raises:
        UserError: when the vocabulary does not exist, or the kind is one that is trained.
    """
    path = options.vocabulary
    if path is None:
        return options.kind
    if options.kind in ("unigram", "bpe"):
        raise UserError(
            f"tokenizer.vocabulary {path} does not fit tokenizer.kind {options.kind}, which is "
            "trained: leave out one of them."
        )
    if hub_name(path) is not None:
        return "existing"
    if not path.exists():
        raise UserError(f"There is no vocabulary {path}: correct tokenizer.vocabulary.")
    return "existing" if path.is_dir() or path.suffix == ".json" else "wordpiece"


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
        model = train_sentencepiece(texts, kind=options.kind, **sizes)
        tokenizer = to_fast_tokenizer(model, turkish=options.lowercase == "turkish")
    else:
        tokenizer = train_wordpiece(texts, strip_accents=options.strip_accents, **sizes)
    log(f"trained the tokenizer in {time.monotonic() - started:,.1f} s")
    if (found := tokenizer.get_vocab_size()) < options.vocab_size:
        log(f"the text gives only {found:,} ids: no further piece occurs twice")
    return tokenizer


def _facts(options: TokenizerOptions) -> dict[str, Any]:
    """Return the options that decide the ids; the paths of folders do not.

    A given vocabulary has its own size, an existing tokenizer its own casing.
    """
    kind = effective_kind(options)
    left_out = {"path", "vocabulary", "backend"}
    if options.vocabulary:
        left_out |= {"vocab_size", "alphabet", "train_bytes"}
    if kind == "existing":
        left_out |= {"lowercase", "strip_accents"}
    facts = options.model_dump(mode="json", exclude=left_out)
    facts["kind"] = kind
    if options.vocabulary:
        facts["vocabulary"] = file_sha256(_vocabulary_file(options.vocabulary))[:16]
        if kind == "existing" and (config := options.vocabulary / CONFIG).is_file():
            facts["vocabulary_config"] = file_sha256(config)[:16]
    return facts


def _vocabulary_file(path: Path) -> Path:
    """Return the file whose content decides the ids of a given vocabulary."""
    if path.is_file():
        return path
    names = (BACKEND, VOCABULARY, "vocab.json")
    found = [path / name for name in names if (path / name).is_file()]
    found += sorted(path.glob("*.model"))
    if not found:
        raise UserError(
            f"{path} has no {BACKEND} and no vocabulary: give tokenizer.vocabulary the folder of a "
            "Hugging Face tokenizer."
        )
    return found[0]
