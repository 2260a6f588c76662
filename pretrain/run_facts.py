"""What the manifest of a checkpoint states about its run.

An export repeats it in `stillhouse.json`. The keys on disk are the names of the fields; those of
`TeacherFacts` have `teacher_` in front.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

_TEACHER = "teacher_"


@dataclass(frozen=True, kw_only=True)
class TeacherFacts:
    """The teachers of a distilled model. Older manifests lack some keys, hence the defaults."""

    weights: str = ""  # sha256 of each teacher's weights, joined by "+"
    names: list[str] = field(default_factory=list)  # of each teacher
    hub_names: list[str] = field(default_factory=list)  # the same on the model hub, "" elsewhere
    layers: list[int] = field(default_factory=list)  # those that initialised the student
    parameters: int = 0  # of all teachers
    parameters_kept: int = 0  # without the layers above the last one that a loss reads
    validation: dict[str, float] = field(default_factory=dict)  # empty for several teachers


@dataclass(frozen=True, kw_only=True)
class StartFacts:
    """The model whose weights a run continued to train."""

    name: str  # of its folder, or on the hub
    weights: str  # sha256
    tokenizer: str  # fingerprint; another one than the run's where its vocabulary was transferred
    trained_positions: int  # of its position embeddings that were taken over
    hub_name: str = ""  # on the model hub, where that is known


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run, and how far it had come when the checkpoint was written.

    Older manifests lack some keys, hence the defaults.
    """

    shape: dict[str, Any] = field(default_factory=dict)  # of `BertShape.to_dict`
    parameters: int = 0
    corpus: str = ""  # fingerprint
    corpus_documents: int = 0
    corpus_tokens: int = 0
    languages: list[str] = field(default_factory=list)  # of the corpus, `input.language`
    tokenizer: str = ""  # fingerprint
    identity: dict[str, Any] = field(default_factory=dict)  # see `identity_of`
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    started: str = ""  # date, YYYY-MM-DD
    zero_stage: int = 0
    has_mlm_head: bool = True  # false where no loss trained it and no teacher's was copied
    teacher: TeacherFacts | None = None  # of a student
    start: StartFacts | None = None  # where pretraining was continued

    # The rest differs between the checkpoints of a run.
    step: int = 0  # optimizer steps done
    samples_seen: int = 0
    tokens_seen: int = 0  # real tokens, padding not counted
    trained_ms: int = 0
    world_size: int = 1  # ranks that wrote it
    validation: dict[str, float] = field(default_factory=dict)  # the newest scores
    # Positions that training has reached, those of a teacher or start whose embeddings were copied
    # included: later ones are as they were drawn. None where an older manifest leaves it open.
    trained_positions: int | None = None

    @property
    def kind(self) -> Literal["teacher", "student"]:
        """What was trained."""
        return "student" if self.teacher else "teacher"

    @property
    def longest_row(self) -> int:
        """Tokens of the longest rows that its own steps read; 0 where no recipe is stated."""
        return longest_row_read(self.identity, self.step)

    @property
    def last_row(self) -> int:
        """Tokens of the rows of the last phase, and of the validation set."""
        phases = self.identity.get("train.phases") or [{}]
        return int(phases[-1].get("row_tokens") or self.identity.get("train.row_tokens", 0))

    def to_dict(self) -> dict[str, Any]:
        """Return the entries of a manifest."""
        entries: dict[str, Any] = {"kind": self.kind}
        if self.teacher:
            entries |= {_TEACHER + name: value for name, value in asdict(self.teacher).items()}
        return entries | {name: v for name, v in asdict(self).items() if name != "teacher"}

    @classmethod
    def from_dict(cls, manifest: Mapping[str, Any]) -> Self:
        """Read a manifest; entries that are no facts, such as its `files`, are left out."""
        own = {f.name: manifest[f.name] for f in fields(cls) if f.name in manifest}
        if manifest.get("kind") == "student":
            keys = {f.name: _TEACHER + f.name for f in fields(TeacherFacts)}
            known = {name: manifest[key] for name, key in keys.items() if key in manifest}
            own["teacher"] = TeacherFacts(**known)
        if own.get("start"):
            own["start"] = StartFacts(**own["start"])
        facts = cls(**own)
        copied = facts.teacher is not None and facts.teacher.layers
        if facts.trained_positions is None and not copied:
            facts = replace(facts, trained_positions=facts.longest_row or None)
        return facts


def longest_row_read(identity: Mapping[str, Any], step: int) -> int:
    """Return the tokens of the longest rows that the first steps of a recipe read.

    Args:
        identity: of the recipe, see `identity_of`; 0 is returned for an empty one.
        step: how many steps were taken.
    """
    length = int(identity.get("train.row_tokens", 0))
    longest = first_step = 0
    for phase in identity.get("train.phases") or [{"steps": step}]:
        if first_step < step:
            longest = max(longest, int(phase.get("row_tokens") or length))
        first_step += int(phase["steps"])
    return longest
