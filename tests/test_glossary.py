"""The words of the field: terms that this project once had for itself do not come back.

`docs/glossary.md` has the words that are used instead.
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = (".py", ".yaml", ".md", ".sh", ".sbatch", ".json", ".toml")
# Not ours to reword: text of novels, measured results, a licence, and what was called how before.
EXEMPT = ("data_prep/sample_corpus/", "launch/results/", "CHANGELOG.md")

TERMS = {
    "masked tokens, MLM loss": r"masked[- ]words?",
    "logits, or tokens": r"words? (of|for) (each )?(masked )?tokens?\b|asked for words",
    "cu_seqlens": r"by bounds|bounds of (the |their )?(samples|sequences)",
    "cls_positions": r"\bfirsts\b",
    "position, index, slot, counter": r"\bplaces\b(?! it\b)",
    "uniform draw, Bernoulli draw": r"\b(by|draws?|drawing|a) lots?\b(?! of\b)",
    "step spec, stage plan": r"lessons?\b",
    "setup, student": r"classroom|\bpupils?\b|\benrol",
    "teacher outputs": r"\btaught\b",
    "teacher cache": r"teacher'?s? signal|signal on disk|write_signal|stored signal",
    "reset": r"beg[iau]ns? anew|begun anew",
    "free, discard": r"\bforg[eo]ts?\b|let(s|ting)? go\b",
    "cache, state": r"\bremembers?\b|\bremembered\b",
    "device-to-host synchronisation": r"wait(s|ing)? for the device|asks? the host",
    "sharded": r"shared[- ]out|share[sd]? (it )?out\b",
    "activation checkpointing": r"made again|computed again|\brecompute[ds]?\b",
    "NaN or infinity": r"(numbers?|values?|norms?|gradients?) without end",
    "NSP negative": r"\bpartners?\b|unrelated B\b",
    "document sampling": r"\bvisits?\b",
    "dedup key index": r"\bledgers?\b",
    "pre-token cache": r"\blexicon\b",
    "rank, world size": r"who am i|how many are we",
    "timeout": r"\bpatience\b",
    "PreemptionMonitor, DeviceTimer": r"stop_?watch",
    "synchronise, load, compute": r"\bnobody\b|\bwhoever\b|for ever\b",
}
# Where an old word is the right one, and why.
ALLOWED = {
    # Keys that older recipes and run folders have.
    "pretrain/config/train.py": ("recompute",),
    "pretrain/config/run.py": ("recompute",),
    "tests/pretrain/config/test_run.py": ("recompute",),
    "tests/stories/test_older_runs.py": ("recompute",),
    "tests/data_prep/config/test_renames.py": ("recompute",),
    # Keys of draws: another key would make other samples.
    "data_prep/samples/sentence_pairs.py": ("partner",),
    "data_prep/samples/document_sampling.py": ("visits",),
    # A file name of unfinished corpora.
    "data_prep/dedup/key_index.py": ("ledger",),
    "tests/data_prep/pipeline/test_array_tasks.py": ("ledger",),
}


def texts() -> list[Path]:
    """Return the tracked files that a person reads."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names = listed.stdout.splitlines() if listed.returncode == 0 else []
    paths = [ROOT / name for name in names] or [p for p in ROOT.rglob("*") if p.is_file()]
    return [
        path
        for path in paths
        if path.suffix in TEXTS
        and path != Path(__file__)
        and path.is_file()
        and not str(path.relative_to(ROOT)).startswith(EXEMPT)
    ]


@pytest.mark.parametrize("word", TERMS)
def test_old_term_is_gone(word: str) -> None:
    """No file has a term for which the field has a word, in text or in an identifier."""
    pattern = re.compile(TERMS[word], re.IGNORECASE)
    found = []
    for path in texts():
        name = str(path.relative_to(ROOT))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            spoken = line.replace("_", " ") if path.suffix == ".py" else line
            hit = pattern.search(line) or pattern.search(spoken)
            if hit and hit.group().lower() not in ALLOWED.get(name, ()):
                found.append(f"{name}:{number}: {line.strip()}")
    assert not found, f"say {word!r} instead:\n" + "\n".join(found)


def test_glossary_sees_terms() -> None:
    """Each pattern matches its own old term, so that no check is empty."""
    old = "masked words|asked for words|by bounds|firsts|places|by lot|lesson|classroom|taught|"
    old += "teacher's signal|begins anew|forgets|remembers|waits for the device|shared out|"
    old += "computed again|numbers without end|partner|visits|ledger|lexicon|who am I|patience|"
    old += "StopWatch|nobody"
    assert [
        word for word, pattern in TERMS.items() if not re.search(pattern, old, re.IGNORECASE)
    ] == []
