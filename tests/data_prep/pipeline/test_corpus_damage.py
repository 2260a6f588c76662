"""A damaged corpus is refused in one sentence or read unchanged."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.corpus.inspection import verify_corpus
from data_prep.corpus.shards import SPLITS, Corpus
from data_prep.errors import UserError
from data_prep.manifest import MANIFEST
from tests.synthetic_corpora import write_corpus

DOCUMENTS = [[[5, 6, 7], [8]], [[9, 9]], [[10], [11, 12], [13]]]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.just([]), st.just({}),
    st.floats(), st.just("../../etc/passwd"),
)  # fmt: skip
Path_ = list[str | int]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "corpus"
    write_corpus(path, {"train": [DOCUMENTS[:2], DOCUMENTS[2:]], "validation": [DOCUMENTS[:1]]})
    return path


def contents(path: Path) -> list[list[list[int]]]:
    return [
        [sentence.tolist() for sentence in corpus.document(index)]
        for split in SPLITS
        for corpus in (Corpus.open(path, split),)
        for index in range(corpus.num_documents)
    ]


def json_paths(tree: Any, at: Path_) -> list[Path_]:
    """Return the path of every value of a JSON tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    below = [
        path
        for key, value in pairs
        if isinstance(value, dict | list)
        for path in json_paths(value, [*at, key])
    ]
    return [*below, *([*at, key] for key in (tree if isinstance(tree, dict) else range(len(tree))))]


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_changed_manifest_is_refused_or_equal(sound: Path, data: st.DataObject) -> None:
    """A manifest with any value replaced or removed is refused, or reads as before."""
    original = json.loads((sound / MANIFEST).read_text())
    tree = copy.deepcopy(original)
    *way, last = data.draw(st.sampled_from(json_paths(tree, [])))
    inner = tree
    for key in way:
        inner = inner[key]
    if data.draw(st.booleans()):
        del inner[last]
    else:
        inner[last] = data.draw(VALUES)
    (sound / MANIFEST).write_text(json.dumps(tree))
    try:
        found = contents(sound)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert found == [*DOCUMENTS, DOCUMENTS[0]]
    finally:
        (sound / MANIFEST).write_text(json.dumps(original))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(content=st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)))
def test_random_manifest_is_refused(sound: Path, content: bytes) -> None:
    """A manifest of random bytes is refused."""
    original = (sound / MANIFEST).read_bytes()
    (sound / MANIFEST).write_bytes(content)
    try:
        with pytest.raises(UserError):
            Corpus.open(sound)
    finally:
        (sound / MANIFEST).write_bytes(original)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_flipped_or_truncated_files_are_found(sound: Path, data: st.DataObject) -> None:
    """Any flipped byte and any other length are found."""
    file = data.draw(st.sampled_from(sorted(sound.glob("*.bin"))))
    original = file.read_bytes()
    changed = np.frombuffer(original, np.uint8).copy()
    if data.draw(st.booleans()):
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        changed = changed[: data.draw(st.integers(0, len(changed) - 1))]
    file.write_bytes(changed.tobytes())
    try:
        with pytest.raises(UserError, match=file.name.replace(".", r"\.")):
            verify_corpus(sound)
    finally:
        file.write_bytes(original)


def test_undamaged_corpus_is_read(sound: Path, tmp_path: Path) -> None:
    """The undamaged corpus is read and verifies."""
    shutil.copytree(sound, tmp_path / "copy")
    assert contents(tmp_path / "copy") == [*DOCUMENTS, DOCUMENTS[0]]
    verify_corpus(tmp_path / "copy")
