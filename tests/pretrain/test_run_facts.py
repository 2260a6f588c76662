"""The facts of a run on disk: the same keys as ever, and older manifests still read."""

import json

import pytest

from pretrain.run_facts import RunFacts, StartFacts, TeacherFacts, longest_row_read

KEYS = {
    "kind", "shape", "parameters", "corpus", "corpus_documents", "corpus_tokens", "tokenizer",
    "identity", "device", "versions", "started", "zero_stage", "step", "samples_seen",
    "tokens_seen", "trained_ms", "world_size", "validation", "trained_positions",
    "start", "languages", "has_mlm_head",
}  # fmt: skip
TEACHER_KEYS = {"teacher_weights", "teacher_layers", "teacher_parameters",
                "teacher_parameters_kept", "teacher_validation", "teacher_names",
                "teacher_hub_names"}  # fmt: skip


def test_manifest_keys_are_unchanged() -> None:
    """Run folders and exports of every version have the same keys."""
    assert RunFacts().to_dict().keys() == KEYS
    assert RunFacts(teacher=TeacherFacts()).to_dict().keys() == KEYS | TEACHER_KEYS


def test_facts_survive_json() -> None:
    """What is read back from a manifest equals what was written."""
    teacher = TeacherFacts(weights="a+b", layers=[0, 3], parameters=7, parameters_kept=5)
    start = StartFacts(name="bert", weights="a", tokenizer="b", trained_positions=512)
    scores = {"validation/loss_mlm": 2.5}
    facts = RunFacts(corpus="c", teacher=teacher, start=start, step=3, validation=scores)
    stored = json.loads(json.dumps({**facts.to_dict(), "files": {}}))
    assert RunFacts.from_dict(stored) == facts


def test_older_manifests_are_read() -> None:
    """Absent keys take their defaults, and unknown ones are left out."""
    assert RunFacts.from_dict({"step": 2, "license": "x"}) == RunFacts(step=2)
    old = RunFacts.from_dict({"kind": "student", "teacher_layers": [1]})
    assert old.kind == "student" and old.teacher == TeacherFacts(layers=[1])


@pytest.mark.parametrize(("step", "longest"), [(0, 0), (1, 128), (90, 128), (91, 512), (100, 512)])
def test_phase_counts_from_its_first_step(step: int, longest: int) -> None:
    """Rows of a phase are read from its first step on, not when the one before it ends."""
    phases = [{"steps": 90, "row_tokens": None}, {"steps": 10, "row_tokens": 512}]
    assert longest_row_read({"train.row_tokens": 128, "train.phases": phases}, step) == longest


def test_older_manifests_trained_what_their_rows_reach() -> None:
    """Without the entry, positions follow from the recipe, but for a student that copied some."""
    old = {"step": 5, "identity": {"train.row_tokens": 128}}
    assert RunFacts.from_dict(old).trained_positions == 128
    drawn = {**old, "kind": "student", "teacher_layers": []}
    assert RunFacts.from_dict(drawn).trained_positions == 128
    copied = RunFacts.from_dict({**drawn, "teacher_layers": [0, 2]})
    assert (copied.trained_positions, copied.longest_row) == (None, 128)
    assert RunFacts.from_dict({**old, "trained_positions": 512}).trained_positions == 512
