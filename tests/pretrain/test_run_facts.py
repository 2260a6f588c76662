"""The facts of a run on disk: the same keys as ever, and older manifests still read."""

import json

from pretrain.run_facts import RunFacts, TeacherFacts

KEYS = {
    "kind", "shape", "parameters", "corpus", "corpus_documents", "corpus_tokens", "tokenizer",
    "identity", "device", "versions", "started", "zero_stage", "step", "samples_seen",
    "tokens_seen", "trained_ms", "world_size", "validation",
}  # fmt: skip
TEACHER_KEYS = {"teacher_weights", "teacher_layers", "teacher_parameters",
                "teacher_parameters_kept", "teacher_validation"}  # fmt: skip


def test_manifest_keys_are_unchanged() -> None:
    """Run folders and exports of every version have the same keys."""
    assert RunFacts().to_dict().keys() == KEYS
    assert RunFacts(teacher=TeacherFacts()).to_dict().keys() == KEYS | TEACHER_KEYS


def test_facts_survive_json() -> None:
    """What is read back from a manifest equals what was written."""
    teacher = TeacherFacts(weights="a+b", layers=[0, 3], parameters=7, parameters_kept=5)
    facts = RunFacts(corpus="c", teacher=teacher, step=3, validation={"validation/loss_mlm": 2.5})
    stored = json.loads(json.dumps({**facts.to_dict(), "files": {}}))
    assert RunFacts.from_dict(stored) == facts


def test_older_manifests_are_read() -> None:
    """Absent keys take their defaults, and unknown ones are left out."""
    assert RunFacts.from_dict({"step": 2, "license": "x"}) == RunFacts(step=2)
    old = RunFacts.from_dict({"kind": "student", "teacher_layers": [1]})
    assert old.kind == "student" and old.teacher == TeacherFacts(layers=[1])
