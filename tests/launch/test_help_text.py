"""Help on keys: whole sentences within the width, with defaults, choices and kinds of elements."""

import pytest

from data_prep.config.help_text import describe, overview
from data_prep.config.keys import dotted_keys
from data_prep.config.loader import Options
from data_prep.config.schema import CorpusRecipe
from data_prep.errors import UserError
from launch.studies.options import StudyRecipe
from pretrain.config.run import TeacherRecipe
from pretrain.distil.config import StudentRecipe
from pretrain.distil.teacher_cache.run import TeacherCacheRecipe

KINDS = [CorpusRecipe, TeacherRecipe, StudentRecipe, TeacherCacheRecipe, StudyRecipe]


def words_of(text: str) -> str:
    """Return a text without the line breaks of its columns."""
    return " ".join(text.split())


@pytest.mark.parametrize("columns", [60, 100, 140])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_all_holds_every_description_whole(kind: type[Options], columns: int) -> None:
    """`--help all` has each key and its whole description, within the width."""
    text = describe(kind, "all", columns)
    assert max(map(len, text.splitlines())) <= columns
    shown = words_of(text)
    for key in dotted_keys(kind):
        *groups, leaf = key.split(".")
        model: type[Options] = kind
        for group in groups:
            annotation = model.model_fields[group].annotation
            model = next(
                each
                for each in (annotation, *getattr(annotation, "__args__", ()))
                if isinstance(each, type) and issubclass(each, Options)
            )
        assert f"{key} = " in shown
        description = words_of(model.model_fields[leaf].description or "")
        assert description in shown
    assert not any(line.endswith("...") for line in text.splitlines())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_overview_names_every_group(kind: type[Options]) -> None:
    """The first screen has a line for each group and the keys that are met most."""
    key = next(iter(dotted_keys(kind)))
    lines = overview(kind, [key], 100).splitlines()
    assert len(lines) <= 30 and max(map(len, lines)) <= 100
    for name in kind.model_fields:
        assert any(line.startswith(f"  {name} ") for line in lines)
    assert any(line.startswith(f"  {key} = ") for line in lines)


def test_group_help_lists_its_keys() -> None:
    """`--help optim` has the group's meaning, and each key with its default and choices."""
    text = describe(TeacherRecipe, "optim", 100)
    assert text.startswith("optim: ")
    assert "optim.lr = 0.0001" in text and "[adamw | lamb | muon]" in words_of(text)
    assert "train.steps" not in text.replace("train.budget_minutes", "")


def test_key_help_says_type_and_spelling() -> None:
    """`--help KEY` has the type, the bounds, and the override as the shell takes it."""
    text = describe(TeacherRecipe, "optim.lr", 100)
    assert "Type: number, above 0." in text and "optim.lr=0.0001" in text
    assert "'student.init=[0, 2]'" in describe(StudentRecipe, "student.init", 100)
    assert "inputs.wiki.path = null" in describe(CorpusRecipe, "inputs.wiki.path", 100)


def test_list_help_explains_its_elements() -> None:
    """`--help objectives` lists the kinds and their keys; a kind and a key of it can be named."""
    text = describe(StudentRecipe, "objectives", 100)
    for kind in ("soft_targets", "hard_mlm", "relations", "feature_maps"):
        assert f"\n  {kind}: " in text
    assert "temperature = 1.0" in text and text.count("  weight = 1.0") == 1
    assert "temperature = 1.0" in describe(StudentRecipe, "objectives.soft_targets", 100)
    assert "Type: number" in describe(StudentRecipe, "objectives.0.temperature", 100)
    assert "heads" in describe(StudentRecipe, "objectives.relations", 100)
    assert "steps = required" in describe(StudentRecipe, "stages", 100)
    assert "row_tokens = null" in describe(TeacherRecipe, "train.phases", 100)
    assert "from_rows = required" in describe(TeacherRecipe, "train.ramp", 100)


@pytest.mark.parametrize(
    ("part", "nearest"),
    [("optin", "optim"), ("optim.lrr", "optim.lr"), ("learning_rate", "optim.lr")],
)
def test_unknown_part_names_the_nearest(part: str, nearest: str) -> None:
    """A part that does not exist is refused with the one that was probably meant."""
    with pytest.raises(UserError, match=f"no key or group '{part}': did you mean '{nearest}'"):
        describe(TeacherRecipe, part, 100)
