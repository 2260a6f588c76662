"""The pipeline in one command: contents, manifest, resumption and refusals."""

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.config.schema import CorpusRecipe
from data_prep.corpus.shards import SPLITS, Corpus, Documents, ShardWriter
from data_prep.errors import UserError
from data_prep.pipeline.build import build_corpus
from data_prep.readers import listing as listing_module
from data_prep.tokenizers.folder import load_tokenizer

Prose = Callable[[str, int], str]
RecipeFor = Callable[..., CorpusRecipe]


@pytest.fixture
def text(tmp_path: Path, prose: Prose, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of 3 files and 90 documents, which small slices cut into several tasks."""
    monkeypatch.setattr(listing_module, "SLICE_BYTES", 3_200)
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "c.txt"):
        (folder / name).write_text(prose(name, 30), "utf-8")
    return folder


def decoded(recipe: CorpusRecipe, split: str) -> list[str]:
    backend = load_tokenizer(recipe.tokenizer.path).backend
    corpus = Corpus.open(recipe.corpus.path, split)
    return [
        " ".join(backend.decode(sentence.tolist()) for sentence in corpus.document(index))
        for index in range(corpus.num_documents)
    ]


def leftovers(recipe: CorpusRecipe) -> list[Path]:
    return list(recipe.corpus.path.parent.glob(recipe.corpus.path.name + "*"))


def test_build_keeps_every_document(recipe_for: RecipeFor, text: Path) -> None:
    """Every document is in one split and decodes to its text."""
    recipe = recipe_for(text)
    manifest = build_corpus(recipe)
    originals = [
        block.replace("\n", " ").strip().lower()
        for path in sorted(text.iterdir())
        for block in path.read_text("utf-8").split("\n\n")
    ]
    train, validation = decoded(recipe, "train"), decoded(recipe, "validation")
    assert sorted(train + validation) == sorted(originals) and train and validation
    assert train == [document for document in originals if document in set(train)], "order is kept"
    for split in SPLITS:
        corpus = Corpus.open(recipe.corpus.path, split)
        found = (corpus.num_documents, corpus.num_sentences, corpus.num_tokens)
        facts = manifest["splits"][split]
        assert found == (facts["documents"], facts["sentences"], facts["tokens"])
        assert all(shard["documents"] > 0 for shard in facts["shards"])


def test_manifest_describes_input(recipe_for: RecipeFor, text: Path) -> None:
    """The manifest describes the input, the tokenizer and every file."""
    recipe = recipe_for(text)
    returned = build_corpus(recipe)
    manifest = json.loads((recipe.corpus.path / "manifest.json").read_text())
    tokenizer = load_tokenizer(recipe.tokenizer.path)
    assert returned == manifest
    assert manifest["format"] == "stillhouse-corpus-2" and manifest["token_type"] == "uint16"
    assert manifest["tokenizer"] == tokenizer.fingerprint
    assert manifest["vocab_size"] == tokenizer.vocab_size
    assert manifest["sources"] == [
        {"path": f"text/{name}.txt", "bytes": (text / f"{name}.txt").stat().st_size}
        for name in "abc"
    ]
    assert str(text.parent) not in json.dumps(manifest), "it names no place of this machine"
    on_disk = {path.name for path in recipe.corpus.path.iterdir()}
    assert on_disk == {"manifest.json", *manifest["files"]}


def test_corpus_ignores_worker_count(recipe_for: RecipeFor, text: Path, tmp_path: Path) -> None:
    """The corpus is the same for any number of workers."""
    manifests = [
        build_corpus(recipe_for(text, workers=workers, corpus__path=tmp_path / f"c{workers}"))
        for workers in (1, 2, 3)
    ]
    assert len(manifests[0]["splits"]["train"]["shards"]) > 2, "there are several tasks"
    assert manifests[0] == manifests[1] == manifests[2]


def test_copies_share_split(recipe_for: RecipeFor, text: Path, prose: Prose) -> None:
    """Copies of a document are in the same split."""
    (text / "d.txt").write_text(prose("a.txt", 30), "utf-8")
    recipe = recipe_for(text, corpus__validation_share=0.3, clean__duplicates="keep")
    build_corpus(recipe)
    train, validation = decoded(recipe, "train"), decoded(recipe, "validation")
    assert not set(train) & set(validation)
    assert len(train) + len(validation) == 120
    assert 0.1 < len(validation) / 120 < 0.5


def test_dropped_documents_are_counted(recipe_for: RecipeFor, text: Path) -> None:
    """Dropped and changed documents are counted by reason."""
    records = ["", "  \n ", "tiny", "\u200b" * 30, "long enough to be kept, this one is."]
    (text / "d.jsonl").write_text("".join(json.dumps({"text": r}) + "\n" for r in records))
    manifest = build_corpus(recipe_for(text, clean__min_chars=10))
    assert manifest["dropped"] == {"empty": 2, "too_short": 1, "without_tokens": 1}
    assert manifest["changed"] == {"mended": 1}
    assert sum(split["documents"] for split in manifest["splits"].values()) == 91


def test_large_vocabulary_uses_uint32(recipe_for: RecipeFor, text: Path) -> None:
    """A vocabulary above 65,536 ids is stored as uint32."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(66_000)), "the"]
    (text.parent / "vocab.txt").write_text("\n".join(words) + "\n")
    recipe = recipe_for(text, tokenizer__vocabulary=text.parent / "vocab.txt")
    assert build_corpus(recipe)["token_type"] == "uint32"
    tokens = np.concatenate([shard.tokens for shard in Corpus.open(recipe.corpus.path).shards])
    assert tokens.dtype == np.uint32 and set(tokens.tolist()) == {1, 66_005}


def test_up_to_date_corpus_is_kept(
    recipe_for: RecipeFor, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A corpus that is up to date is not changed."""
    first = build_corpus(recipe_for(text))
    before = (text.parent / "corpus" / "manifest.json").stat().st_mtime_ns
    assert build_corpus(recipe_for(text, workers=2)) == first
    assert (text.parent / "corpus" / "manifest.json").stat().st_mtime_ns == before
    assert "is up to date" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"seed": 3}, r"seed \(0, and now it is 3\)"),
        ({"clean__min_chars": 5}, r"clean\.min_chars \(0, and now it is 5\)"),
        ({"input__pattern": "[ab]*"}, "input.pattern|list of sources"),
    ],
)
def test_changed_options_are_refused(
    recipe_for: RecipeFor, text: Path, changes: dict[str, Any], difference: str
) -> None:
    """A corpus made with other options is refused with the first difference."""
    build_corpus(recipe_for(text))
    with pytest.raises(UserError, match=rf"made with another ({difference}): remove it"):
        build_corpus(recipe_for(text, **changes))


def test_corpus_older_than_input_is_refused(recipe_for: RecipeFor, text: Path) -> None:
    """A corpus older than its input is refused."""
    build_corpus(recipe_for(text))
    late = (text.parent / "corpus" / "manifest.json").stat().st_mtime + 60
    os.utime(text / "b.txt", (late, late))
    with pytest.raises(UserError, match=r"older than its input .*b\.txt"):
        build_corpus(recipe_for(text))
    (text / "b.txt").write_text("Another text. " * 20)
    with pytest.raises(UserError, match="another list of sources"):
        build_corpus(recipe_for(text))


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_file_keeps_finished_tasks(
    recipe_for: RecipeFor, text: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken file leaves no corpus, and finished tasks stay done."""
    build_corpus(recipe_for(text, corpus__path=text.parent / "first"))
    (text / "z.txt").write_bytes(b"Fine so far.\n\n" * 500 + b"\xc3(")
    recipe = recipe_for(text, workers=workers)
    with pytest.raises(UserError, match=r"z\.txt is not UTF-8: .* byte offset 7000 "):
        build_corpus(recipe)
    assert not recipe.corpus.path.exists()
    (text / "z.txt").write_bytes(b"Now it is text.\n\n" * 3 + b"All of it.\n")
    manifest = build_corpus(recipe)
    done = re.findall(r"done before: (\d+)", capsys.readouterr().err)
    assert int(done[-1]) >= 3, done
    assert leftovers(recipe) == [recipe.corpus.path]
    assert manifest["dropped"] == {"duplicates": 2}
    assert manifest["splits"]["train"]["documents"] > 80


@pytest.mark.parametrize(
    ("code", "message"), [(errno.ENOSPC, "disk that holds .* is full"), (errno.EACCES, "failed")]
)
def test_full_disk_leaves_resumable_build(
    recipe_for: RecipeFor, text: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    """A full disk leaves no corpus, and the same command resumes."""
    written = []

    def write_until_full(writer: ShardWriter, documents: Documents) -> None:
        written.append(documents.num_documents)
        if len(written) == 5:
            raise OSError(code, os.strerror(code))
        real_add(writer, documents)

    real_add = ShardWriter.add
    monkeypatch.setattr(ShardWriter, "add", write_until_full)
    recipe = recipe_for(text)
    with pytest.raises(UserError, match=message):
        build_corpus(recipe)
    assert len(written) == 5 and not recipe.corpus.path.exists()
    monkeypatch.setattr(ShardWriter, "add", real_add)
    whole = build_corpus(recipe_for(text, corpus__path=text.parent / "whole"))
    assert build_corpus(recipe) == whole and leftovers(recipe) == [recipe.corpus.path]


def test_stale_files_are_not_merged(recipe_for: RecipeFor, text: Path) -> None:
    """Files of an earlier crash do not get into the corpus."""
    recipe = recipe_for(text)
    partial = Path(f"{recipe.corpus.path}.partial")
    partial.mkdir()
    (partial / "train_00099_000.tokens.bin").write_bytes(b"stale")
    (partial / "corpus").mkdir()
    (partial / "corpus" / "train_00099_000.tokens.bin").write_bytes(b"stale")
    build_corpus(recipe)
    assert not partial.exists()
    assert not (recipe.corpus.path / "train_00099_000.tokens.bin").exists()


@pytest.mark.parametrize(("share", "documents"), [(1e-9, 1), (0.999999, 90)])
def test_too_few_documents_are_refused(
    recipe_for: RecipeFor, text: Path, prose: Prose, share: float, documents: int
) -> None:
    """Too few documents in a split are refused with their number."""
    if documents == 1:
        for path in text.iterdir():
            path.unlink()
        (text / "one.txt").write_text(prose("one", 1))
    recipe = recipe_for(text, corpus__validation_share=share, tokenizer__vocab_size=100)
    with pytest.raises(UserError, match=r"train split has [01] documents .* at least 2"):
        build_corpus(recipe)
    assert not recipe.corpus.path.exists()


@pytest.mark.parametrize(
    ("backend", "line"),
    [
        ("auto", "tokenizing with nanotoken\n"),
        ("tokenizers", "tokenizing with tokenizers: tokenizer.backend=tokenizers\n"),
    ],
)
def test_log_names_the_tokenizing_library(
    recipe_for: RecipeFor, text: Path, capsys: pytest.CaptureFixture[str], backend: str, line: str
) -> None:
    """The log names once what computes the ids, and why where that is not the fastest."""
    build_corpus(recipe_for(text, tokenizer__backend=backend))
    assert capsys.readouterr().err.count(line) == 1


def test_backends_make_the_same_corpus(recipe_for: RecipeFor, text: Path, tmp_path: Path) -> None:
    """A corpus is the same to the byte, whichever library computed its ids."""
    fast = build_corpus(recipe_for(text))
    slow = build_corpus(
        recipe_for(text, tokenizer__backend="tokenizers", corpus__path=tmp_path / "slow")
    )
    assert fast["files"] == slow["files"]


def test_empty_validation_is_refused_before_work(recipe_for: RecipeFor, text: Path) -> None:
    """A recipe without held-out documents is refused before the first byte is read."""
    with pytest.raises(ValueError, match="greater than 0"):
        recipe_for(text, corpus__validation_share=0.0)


def raises(text: str) -> bool:
    raise ZeroDivisionError("score")


def test_failing_filter_names_document(recipe_for: RecipeFor, text: Path) -> None:
    """A filter of the user that raises is named with the document, in one sentence."""
    recipe = recipe_for(text, clean__keep=f"{__file__}:raises")
    with pytest.raises(UserError, match=r"clean\.keep=.*:raises, for a document .* raised Zero"):
        build_corpus(recipe)
