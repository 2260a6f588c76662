"""Continued pretraining: a model that starts with the weights of another (`model.start`).

The weights are read once. A run that has a checkpoint continues from it and needs its start no
more: the checkpoint states the shape, and what it started from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer
from data_prep.tokenizers.foreign.comparison import check_model_tokenizer, open_model_tokenizer
from pretrain.checkpoint_manifest import is_committed
from pretrain.config.run import TeacherRecipe
from pretrain.distributed import Cluster
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.loading import LocatedModel, load_located, locate
from pretrain.model.names import known_hub_name, model_name
from pretrain.run_facts import StartFacts
from pretrain.start.positions import describe_resizing
from pretrain.start.shape import continued_shape
from pretrain.start.vocabulary import VocabularyTransfer, plan_transfer
from pretrain.start.weights import copy_weights


@dataclass(frozen=True, kw_only=True)
class ContinuedModel:
    """A model before its first step, and what the manifests state of its start."""

    model: Bert
    facts: StartFacts


@dataclass(frozen=True, kw_only=True)
class _Start:
    """A start that fits the recipe, before its weights are read."""

    located: LocatedModel
    tokenizer: str  # fingerprint
    transfer: VocabularyTransfer | None  # where its vocabulary is another


def continue_from_start(
    recipe: TeacherRecipe, tokenizer: LoadedTokenizer, cluster: Cluster
) -> ContinuedModel:
    """Return the model of a recipe that names a start (all ranks).

    Args:
        recipe: of the run.
        tokenizer: of its corpus.
        cluster: the ranks.

    Raises:
        UserError: when start, recipe and tokenizer do not match.
    """
    path = recipe.model.start
    assert path is not None
    own = cluster.on_main(lambda: _locate_own(recipe.run.path))
    if own is not None and own.facts is not None and own.facts.start is not None:
        model = cluster.on_all(lambda: load_located(own)).model
        return ContinuedModel(model=model, facts=own.facts.start)
    start = cluster.on_main(lambda: _open(path, recipe, tokenizer))
    located, transfer = start.located, start.transfer
    shape = continued_shape(recipe, located.shape, tokenizer, transfers=transfer is not None)
    model = Bert(shape)
    initialise(model, recipe.train.seed)
    new, left = copy_weights(
        cluster.on_all(lambda: load_located(located)).model,
        model,
        has_mlm_head=located.has_mlm_head,
        trained_positions=located.trained_positions,
        transfer=transfer,
    )
    if cluster.is_main:
        print("\n".join(_lines(path, start, shape, new, left)))
    return ContinuedModel(
        model=model,
        facts=StartFacts(
            name=model_name(located.folder),
            hub_name=known_hub_name(located.folder),
            weights=located.sha256,
            tokenizer=start.tokenizer,
            trained_positions=min(located.trained_positions, shape.positions),
        ),
    )


def _locate_own(run_path: Path) -> LocatedModel | None:
    """Return the newest checkpoint of the run itself, None where it has none (rank 0)."""
    checkpoints = (run_path / "checkpoints").glob("step_*")
    return locate(run_path) if any(is_committed(path) for path in checkpoints) else None


def _open(path: Path, recipe: TeacherRecipe, tokenizer: LoadedTokenizer) -> _Start:
    """Locate a start and compare its tokenizer with that of the corpus (rank 0)."""
    located = locate(path)
    stated = located.facts.tokenizer if located.facts else ""
    if stated and tokenizer.is_recorded_as(stated):
        return _Start(located=located, tokenizer=stated, transfer=None)
    own = open_model_tokenizer(located.folder)
    _check_size(path, located, own)
    try:
        check_model_tokenizer(located.folder, stated, tokenizer)
    except UserError as error:
        if recipe.model.vocabulary == "same":
            raise UserError(
                f"{str(error).removesuffix('.')}, or set model.vocabulary=transfer to carry the "
                "embeddings of model.start over to the tokens of the corpus."
            ) from error
        transfer = plan_transfer(own, tokenizer)
        return _Start(located=located, tokenizer=own.fingerprint, transfer=transfer)
    return _Start(located=located, tokenizer=own.fingerprint, transfer=None)


def _check_size(path: Path, located: LocatedModel, own: LoadedTokenizer) -> None:
    if own.vocab_size > located.shape.vocab_size:
        raise UserError(
            f"model.start {path} has embeddings of {located.shape.vocab_size} tokens, but its "
            f"tokenizer has {own.vocab_size}: resize them to it with resize_token_embeddings of "
            "transformers, or restore the tokenizer that it was trained with."
        )


def _lines(
    path: Path, start: _Start, shape: BertShape, new: Sequence[str], left: Sequence[str]
) -> list[str]:
    """Return what the log says of a start: what was taken over, and how."""
    located = start.located
    lines = [f"Starting from {path} (sha256 {located.sha256[:16]}), with a fresh optimizer."]
    if start.transfer is not None:
        lines.append(f"Vocabulary: {start.transfer.describe()}.")
    if sizes := describe_resizing(
        located.shape.positions, shape.positions, located.trained_positions
    ):
        lines.append(f"Positions: {sizes}.")
    if new:
        lines.append(f"Heads that begin at random, because the start has none: {', '.join(new)}.")
    if left:
        lines.append(f"Heads of the start that this recipe does not train: {', '.join(left)}.")
    return lines
