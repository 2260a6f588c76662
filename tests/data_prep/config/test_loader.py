"""Recipes: what is misspelt is named, what is given is used, what we ship is valid."""

from pathlib import Path

import pytest
from pydantic import Field

from data_prep.config.keys import dotted_keys
from data_prep.config.loader import Options, find_shipped, load_recipe
from data_prep.errors import UserError

RECIPES = Path(__file__).parents[3] / "launch" / "recipes"


class TrainGroup(Options):
    steps: int = Field(ge=1)
    lr: float = 1e-4


class SmallRecipe(Options):
    train: TrainGroup
    name: str = "run"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text("train:\n  steps: 10\n")
    return path


def refusal_of(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as refusal:
        load_recipe(SmallRecipe, path, overrides)
    return str(refusal.value)


def test_defaults_fill_recipe(recipe: Path) -> None:
    """Keys that a file leaves out have their defaults."""
    expected = SmallRecipe(train=TrainGroup(steps=10, lr=1e-4), name="run")
    assert load_recipe(SmallRecipe, recipe) == expected


def test_last_override_wins(recipe: Path) -> None:
    """An override replaces the file's value, and the last one replaces earlier ones."""
    loaded = load_recipe(SmallRecipe, recipe, ["train.steps=20", "train.lr=1e-3", "train.steps=30"])
    assert (loaded.train.steps, loaded.train.lr) == (30, 1e-3)


def test_override_value_holds_equals_sign(recipe: Path) -> None:
    """The first `=` separates key and value; others belong to the value."""
    assert load_recipe(SmallRecipe, recipe, ["name=a=b"]).name == "a=b"


def test_override_creates_missing_group(recipe: Path) -> None:
    """An override sets a key of a group that the file leaves out."""
    recipe.write_text("")
    assert load_recipe(SmallRecipe, recipe, ["train.steps=3"]).train.steps == 3


@pytest.mark.parametrize(
    ("override", "nearest"),
    [("train.step=5", "train.steps"), ("trian.steps=5", "train"), ("nmae=x", "name")],
)
def test_unknown_key_suggests_nearest(recipe: Path, override: str, nearest: str) -> None:
    """An unknown key is refused with the nearest known one."""
    assert f"did you mean {nearest!r}?" in refusal_of(recipe, override)


def test_unknown_key_lists_known_keys(recipe: Path) -> None:
    """An unknown key that is near to none is refused with those that exist."""
    assert refusal_of(recipe, "zzz=1").endswith(
        "known keys are train, name; `--help all` describes them."
    )


def test_misspelt_group_is_not_missing(recipe: Path) -> None:
    """A misspelt group is reported as unknown, not as missing."""
    recipe.write_text("trian:\n  steps: 10\n")
    assert "Unknown key 'trian'" in refusal_of(recipe)
    assert "did you mean 'train'?" in refusal_of(recipe)


def test_missing_key_names_override(recipe: Path) -> None:
    """A missing key is refused with the override that gives it."""
    recipe.write_text("train: {}\n")
    assert "The key 'train.steps' is missing" in refusal_of(recipe)
    assert "train.steps=VALUE" in refusal_of(recipe)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.steps=soon", ("train.steps is 'soon' on the command line", "a whole number")),
        ("train.steps=0", ("train.steps is 0 on the command line", "1 or more")),
        ("train.steps", ("'train.steps'", "key.path=value")),
        ("=5", ("'=5'", "key.path=value")),
        ("name.first=5", ("'name'", "it is the value 'x'")),
        ("train.steps=[1", ("'train.steps=[1'", "not valid YAML")),
    ],
)
def test_bad_override_is_one_sentence(recipe: Path, override: str, words: tuple[str, ...]) -> None:
    """A malformed override is refused in one sentence."""
    recipe.write_text("train:\n  steps: 10\nname: x\n")
    message = refusal_of(recipe, override)
    assert all(word in message for word in words), message
    assert "\n" not in message and message.endswith(".")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"train: [1", "is not valid YAML"),
        (b"train:\n\tsteps: 1", "is not valid YAML"),
        (b"name: \xff", "is not valid YAML"),
        (b"- train", "must be a mapping of keys, not a list"),
        (b"name: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_invalid_yaml_is_refused(recipe: Path, content: bytes, problem: str) -> None:
    """A file that is no YAML mapping is refused by its name."""
    recipe.write_bytes(content)
    message = refusal_of(recipe)
    assert problem in message and str(recipe) in message and "\n" not in message


def test_missing_file_suggests_shipped() -> None:
    """A missing file is refused with the nearest shipped one, or the folder of all."""
    with pytest.raises(UserError, match=r"no file nowhere/x\.yaml: .* one of .*launch/recipes\."):
        load_recipe(SmallRecipe, Path("nowhere/x.yaml"))
    with pytest.raises(UserError, match=r"did you mean launch/recipes/teacher_base\.yaml\?"):
        load_recipe(SmallRecipe, Path("nowhere/teacher_bas.yaml"))


def test_shipped_recipe_found_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shipped recipe is found by its path from any working directory."""
    monkeypatch.chdir(tmp_path)
    found = find_shipped(Path("launch/recipes/quickstart_teacher.yaml"), "launch", "recipes")
    assert found.samefile(RECIPES / "quickstart_teacher.yaml")


def test_recipe_is_frozen(recipe: Path) -> None:
    """A recipe cannot be changed once it is read."""
    loaded = load_recipe(SmallRecipe, recipe)
    with pytest.raises(ValueError, match="frozen"):
        loaded.name = "other"


def test_dotted_keys_name_every_leaf() -> None:
    """Dotted keys name every key of every group, in order."""
    assert list(dotted_keys(SmallRecipe)) == ["train.steps", "train.lr", "name"]
