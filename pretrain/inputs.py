"""What a run reads, verified before any compute is spent."""

from collections.abc import Callable
from dataclasses import dataclass

from data_prep.errors import UserError
from data_prep.shards import Corpus, read_corpus_manifest
from data_prep.tokenizer import LoadedTokenizer, load_tokenizer
from pretrain.batches import BatchSource, check_divisible
from pretrain.cluster import Cluster
from pretrain.config import RunRecipe
from pretrain.run_directory import RunDirectory
from pretrain.validation import VALIDATION_SEED, ValidationSet


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Tokenizer and corpus of a run, and the batches it will see."""

    tokenizer: LoadedTokenizer
    corpus: Corpus
    source: BatchSource
    validation: ValidationSet


def open_inputs(recipe: RunRecipe, run: RunDirectory, cluster: Cluster) -> Inputs:
    """Open and verify what a run reads (all ranks).

    Raises:
        UserError: for a corpus that has changed, another tokenizer than the corpus was made
            with, a batch that does not divide, or a corpus smaller than one batch.
    """
    train = recipe.train
    check_divisible(train.batch_rows, train.micro_rows, cluster.world_size)
    contents = recipe.corpus.verify == "contents"
    cluster.on_main(lambda: read_corpus_manifest(recipe.corpus.path, hashes=contents))
    tokenizer = load_tokenizer(recipe.tokenizer.path)
    corpus = Corpus.open(recipe.corpus.path, "train")
    _check_tokenizer(tokenizer, corpus, recipe)
    held_out = Corpus.open(recipe.corpus.path, "validation")
    source = _open_source(recipe, run, cluster, tokenizer, corpus, train.seed)
    _check_size(source, recipe)
    fixed = _open_source(recipe, run, cluster, tokenizer, held_out, VALIDATION_SEED)
    validation = ValidationSet(fixed, recipe.validation.rows, train.micro_rows, cluster)
    return Inputs(tokenizer=tokenizer, corpus=corpus, source=source, validation=validation)


def _open_source(
    recipe: RunRecipe,
    run: RunDirectory,
    cluster: Cluster,
    tokenizer: LoadedTokenizer,
    corpus: Corpus,
    seed: int,
) -> BatchSource:
    def build_on_main(build: Callable[[], object]) -> None:
        cluster.on_main(lambda: bool(build()))

    return BatchSource(
        corpus,
        tokenizer,
        recipe.mask,
        seed=seed,
        row_tokens=recipe.train.row_tokens,
        cache=run.plans,
        plans_first=build_on_main,
    )


def _check_tokenizer(tokenizer: LoadedTokenizer, corpus: Corpus, recipe: RunRecipe) -> None:
    if tokenizer.fingerprint != corpus.tokenizer_fingerprint:
        raise UserError(
            f"The tokenizer {recipe.tokenizer.path} ({tokenizer.fingerprint}) is not the one that "
            f"made the corpus {recipe.corpus.path} ({corpus.tokenizer_fingerprint}): correct "
            "tokenizer.path, or prepare the corpus again with this tokenizer."
        )


def _check_size(source: BatchSource, recipe: RunRecipe) -> None:
    rows = source.plan(0).num_rows
    if rows < recipe.train.batch_rows:
        raise UserError(
            f"The corpus {recipe.corpus.path} makes {rows} rows of {recipe.train.row_tokens} "
            f"tokens, fewer than one batch of train.batch_rows {recipe.train.batch_rows}: lower "
            "it, or prepare more text."
        )
