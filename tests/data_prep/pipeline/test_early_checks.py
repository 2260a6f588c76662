"""What is wrong with a recipe is found before a tokenizer is trained; nothing is left behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.config.schema import CorpusRecipe
from data_prep.errors import UserError
from data_prep.pipeline.build import build_corpus
from data_prep.pipeline.preview import preview_documents

RecipeFor = Callable[..., CorpusRecipe]
FUNCTIONS = """
import sys
def first(paragraph): return paragraph.split(". ")[:1]
def fails(paragraph): raise KeyError("model")
def leaves(text): sys.exit(0)
"""


@pytest.fixture
def folder(tmp_path: Path, prose: Callable[[str, int], str]) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text(prose("a", 40), "utf-8")
    return folder


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    return path


@pytest.mark.parametrize("key", ["input__sentences", "clean__keep"])
def test_wrong_function_is_refused_at_once(
    recipe_for: RecipeFor, folder: Path, functions: Path, key: str
) -> None:
    """A function that does not exist is refused before there is a tokenizer."""
    recipe = recipe_for(folder, **{key: f"{functions}:missing"})
    with pytest.raises(UserError, match="has no missing"):
        build_corpus(recipe)
    assert not recipe.tokenizer.path.exists() and not recipe.corpus.path.exists()


@pytest.mark.parametrize("key", ["tokenizer", "corpus"])
def test_output_inside_input_is_refused(recipe_for: RecipeFor, folder: Path, key: str) -> None:
    """A folder that the next command would read as text is refused; a pattern may leave it out."""
    changes = {f"{key}__path": folder / "out"}
    with pytest.raises(UserError, match=rf"{key}\.path .*out lies in the input folder"):
        build_corpus(recipe_for(folder, **changes))
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    assert build_corpus(recipe_for(folder, input__pattern="a*.txt", **changes))["files"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_path_of_something_else_is_refused(
    recipe_for: RecipeFor, folder: Path, tmp_path: Path, what: str
) -> None:
    """A file, or a folder of other things, at the corpus or the tokenizer is named and kept."""
    other = tmp_path / "other"
    if what == "folder":
        other.mkdir()
    kept = other / "notes" if what == "folder" else other
    kept.write_text("mine")
    for key, sentence in (("corpus", "is no corpus"), ("tokenizer", "is no tokenizer")):
        with pytest.raises(UserError, match=sentence):
            build_corpus(recipe_for(folder, **{f"{key}__path": other}))
        assert kept.read_text() == "mine"


def test_unwritable_corpus_path_is_refused(recipe_for: RecipeFor, folder: Path) -> None:
    """A corpus where nothing can be written is one sentence, not a traceback."""
    with pytest.raises(UserError, match="Making /proc/none/corpus failed"):
        build_corpus(recipe_for(folder, corpus__path=Path("/proc/none/corpus")))


@pytest.mark.parametrize("key", ["input__sentences", "clean__keep"])
def test_function_that_exits_is_refused(
    recipe_for: RecipeFor, folder: Path, functions: Path, key: str
) -> None:
    """A function that ends the process does not end the command as if all were well."""
    with pytest.raises(UserError, match="raised SystemExit"):
        build_corpus(recipe_for(folder, **{key: f"{functions}:leaves"}))


def test_text_lost_by_splitter_is_counted(
    recipe_for: RecipeFor, folder: Path, functions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Manifest and log count the documents of which a splitter returns another text."""
    manifest = build_corpus(recipe_for(folder, input__sentences=f"{functions}:first"))
    assert manifest["changed"]["altered"] == sum(
        split["documents"] for split in manifest["splits"].values()
    )
    captured = capsys.readouterr()
    assert "40 altered" in captured.err + captured.out


def test_preview_names_failing_function(
    recipe_for: RecipeFor, folder: Path, functions: Path
) -> None:
    """A preview refuses a function that fails in one sentence, as the build does."""
    with pytest.raises(UserError, match="raised KeyError"):
        list(preview_documents(recipe_for(folder, input__sentences=f"{functions}:fails"), 1))


def test_refusal_tells_what_was_dropped(recipe_for: RecipeFor, folder: Path) -> None:
    """Where cleaning leaves nothing, the refusal counts what it dropped, in words."""
    with pytest.raises(UserError, match=r"0 documents .*\(dropped: 40 too_short\): "):
        build_corpus(recipe_for(folder, clean__min_chars=1_000_000))
