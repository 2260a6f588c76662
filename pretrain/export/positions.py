"""Positions of an export: none is published that training has not reached.

Position embeddings beyond the longest sample of a run are as they were drawn. A model that has them
takes long inputs and computes nonsense there, so they are cut off, or the export is refused.
"""

from dataclasses import replace
from pathlib import Path

from data_prep.errors import UserError
from pretrain.model import Bert
from pretrain.model.loading import TrainedModel
from pretrain.run_facts import RunFacts

_EMBEDDINGS = "bert.embeddings.position_embeddings.weight"
_FEWEST = 16  # as `model.positions` of a recipe


def with_positions(trained: TrainedModel, wanted: int | None, run_path: Path) -> TrainedModel:
    """Return a model with the positions that it is published with, and its facts.

    Args:
        trained: the checkpoint of a run.
        wanted: how many to publish, from the first; None is all.
        run_path: named in messages.

    Raises:
        UserError: for positions that training has not reached, or that the model does not have.
    """
    facts, positions = trained.facts, trained.model.shape.positions
    assert facts is not None
    if wanted is not None and not _FEWEST <= wanted <= positions:
        raise UserError(
            f"--positions is {wanted}, but {run_path} has {positions}: choose from {_FEWEST} to "
            f"{positions}."
        )
    _check_reached(facts, wanted or positions, run_path, stated=wanted is not None)
    if wanted in (None, positions):
        return trained
    return _cut(trained, facts, wanted)


def _check_reached(facts: RunFacts, positions: int, run_path: Path, *, stated: bool) -> None:
    reached = facts.trained_positions
    if reached is not None and reached < positions:
        raise UserError(
            f"Training has reached {reached} positions at step {facts.step} of {run_path}, so "
            f"positions {reached} to {positions - 1} are as they were drawn: publish with "
            f"--positions {reached}, or train on longer rows."
        )
    if reached is None and 0 < facts.longest_row < positions and not stated:
        # An older student: what its teacher trained is not recorded, only a person can say it.
        raise UserError(
            f"{run_path} was trained on rows of {facts.longest_row} tokens and copied the position "
            f"embeddings of a teacher of which nothing is recorded: publish with --positions "
            f"{facts.longest_row}, or with --positions {positions} if the teacher's rows were as "
            "long."
        )


def _cut(trained: TrainedModel, facts: RunFacts, positions: int) -> TrainedModel:
    """Return the model and facts without the position embeddings from `positions` on."""
    weights = trained.model.state_dict()
    weights[_EMBEDDINGS] = weights[_EMBEDDINGS][:positions]
    model = Bert(replace(trained.model.shape, positions=positions))
    model.load_state_dict(weights)
    reached = facts.trained_positions
    cut = replace(
        facts,
        shape={**facts.shape, "positions": positions},
        parameters=model.count_parameters(facts.has_mlm_head),
        trained_positions=None if reached is None else min(reached, positions),
        # Scores on longer rows are those of another model.
        validation=facts.validation if facts.last_row <= positions else {},
    )
    return replace(trained, model=model, facts=cut)
