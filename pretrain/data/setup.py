"""The data of a run, opened and verified before any compute is spent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.corpus.shards import Corpus, read_corpus_manifest
from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer
from pretrain.config.phases import Phase, phases_of
from pretrain.config.run import RunRecipe
from pretrain.data.batch_source import BatchSource
from pretrain.data.loader import Loader, StepDataset
from pretrain.distributed import Cluster

# Opens a split with a seed and a length of rows.
SourceOpener = Callable[[Corpus, int, int], BatchSource]

VALIDATION_SEED = 0  # of pairs and masks: the same validation rows for every run


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Tokenizer and corpus of a run, and its batches."""

    tokenizer: LoadedTokenizer
    corpus: Corpus
    sources: dict[int, BatchSource]  # of the training rows, by their length
    loader: Loader
    validation: BatchSource  # rows as long as those of the last phase


def open_inputs(recipe: RunRecipe, cache: Path, cluster: Cluster) -> Inputs:
    """Open and verify the data of a run (all ranks).

    Args:
        recipe: of the run.
        cache: folder of the epoch indices, which are built once.
        cluster: the ranks.

    Raises:
        UserError: for a corpus that has changed, another tokenizer than the corpus was made
            with, a batch that does not divide, or a corpus smaller than one batch.
    """
    phases = phases_of(recipe.train)
    for phase in phases:
        phase.micro_batches(cluster.world_size)
    _verify_corpus(recipe, cluster)
    tokenizer = load_tokenizer(recipe.tokenizer.path)
    corpus = Corpus.open(recipe.corpus.path, "train")
    _check_tokenizer(tokenizer, corpus, recipe)
    held_out = Corpus.open(recipe.corpus.path, "validation")

    open_source = _source_opener(recipe, tokenizer, cache, cluster)
    sources = _open_training_sources(open_source, corpus, phases, recipe)
    # The same rows throughout the run, as long as the finished model reads. In a phase of shorter
    # rows the later positions of these are not yet trained.
    validation = open_source(held_out, VALIDATION_SEED, phases[-1].row_tokens)
    dataset = StepDataset(sources, phases, recipe.mask, cluster.rank, cluster.world_size)
    loader = Loader(dataset, recipe.loader, cluster.device)
    return Inputs(
        tokenizer=tokenizer, corpus=corpus, sources=sources, loader=loader, validation=validation
    )


def _verify_corpus(recipe: RunRecipe, cluster: Cluster) -> None:
    contents = recipe.corpus.verify == "contents"
    cluster.on_main(lambda: read_corpus_manifest(recipe.corpus.path, hashes=contents))


def _source_opener(
    recipe: RunRecipe, tokenizer: LoadedTokenizer, cache: Path, cluster: Cluster
) -> SourceOpener:
    """Return a function that all ranks call to open a split for this recipe."""

    def build_on_main(build: Callable[[], object]) -> None:
        cluster.on_main(lambda: bool(build()))

    def open_source(split: Corpus, seed: int, row_tokens: int) -> BatchSource:
        return BatchSource(
            split,
            tokenizer,
            recipe.mask,
            seed=seed,
            row_tokens=row_tokens,
            cache=cache,
            samples=recipe.samples,
            build_first=build_on_main,
        )

    return open_source


def _open_training_sources(
    open_source: SourceOpener, corpus: Corpus, phases: Sequence[Phase], recipe: RunRecipe
) -> dict[int, BatchSource]:
    """Return a source for each length of rows, after checking that it fills a batch."""
    lengths = dict.fromkeys(phase.row_tokens for phase in phases)
    sources = {length: open_source(corpus, recipe.train.seed, length) for length in lengths}
    for phase in phases:
        _check_size(sources[phase.row_tokens], phase, recipe)
    return sources


def _check_tokenizer(tokenizer: LoadedTokenizer, corpus: Corpus, recipe: RunRecipe) -> None:
    if not tokenizer.is_recorded_as(corpus.tokenizer_fingerprint):
        raise UserError(
            f"The tokenizer {recipe.tokenizer.path} ({tokenizer.fingerprint}) is not the one that "
            f"made the corpus {recipe.corpus.path} ({corpus.tokenizer_fingerprint}): correct "
            "tokenizer.path, or prepare the corpus again with this tokenizer."
        )


def _check_size(source: BatchSource, phase: Phase, recipe: RunRecipe) -> None:
    rows = source.epoch_index(0).num_rows
    if rows < phase.batch_rows:
        raise UserError(
            f"The corpus {recipe.corpus.path} makes {rows} rows of {phase.row_tokens} "
            f"tokens, fewer than one batch of train.batch_rows {phase.batch_rows}: lower "
            "it, or prepare more text."
        )
