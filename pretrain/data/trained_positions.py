"""How many position embeddings a run trains: as many as its longest samples have tokens.

Samples are cut at the length of their rows, and positions restart with each of them. An embedding
that no sample reaches stays as it was drawn, and a model that is published with it computes
nonsense there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pretrain.config.phases import Phase
from pretrain.data.batch_source import BatchSource


@dataclass(frozen=True, kw_only=True)
class TrainedPositions:
    """The positions that are trained after each step of a run."""

    inherited: int  # trained already in the model that the position embeddings are copied from
    by_phase: tuple[tuple[int, int], ...]  # first step of a phase, tokens of its longest sample

    @classmethod
    def of(
        cls, phases: Sequence[Phase], sources: Mapping[int, BatchSource], inherited: int = 0
    ) -> Self:
        """Return the positions of a run.

        Args:
            phases: of the run.
            sources: of its rows, by their length. Samples are those of the first epoch; later ones
                cut the same documents.
            inherited: positions trained before the run.
        """
        longest = {n: source.epoch_index(0).longest_sample for n, source in sources.items()}
        by_phase = tuple((phase.first_step, longest[phase.row_tokens]) for phase in phases)
        return cls(inherited=inherited, by_phase=by_phase)

    def after(self, step: int) -> int:
        """Return how many positions are trained once `step` steps are done."""
        begun = [longest for first_step, longest in self.by_phase if first_step < step]
        return max([self.inherited, *begun])

    @property
    def at_end(self) -> int:
        """How many are trained at the end of the run."""
        return max(self.inherited, *(longest for _, longest in self.by_phase))
