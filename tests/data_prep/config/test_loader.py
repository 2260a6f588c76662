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


def test_a_recipe_is_read_with_its_defaults(recipe: Path) -> None:
    expected = SmallRecipe(train=TrainGroup(steps=10, lr=1e-4), name="run")
    assert load_recipe(SmallRecipe, recipe) == expected


def test_overrides_win_over_the_file_and_the_last_one_over_all(recipe: Path) -> None:
    loaded = load_recipe(SmallRecipe, recipe, ["train.steps=20", "train.lr=1e-3", "train.steps=30"])
    assert (loaded.train.steps, loaded.train.lr) == (30, 1e-3)


def test_a_value_may_contain_an_equals_sign(recipe: Path) -> None:
    assert load_recipe(SmallRecipe, recipe, ["name=a=b"]).name == "a=b"


def test_an_override_gives_a_group_that_the_file_lacks(recipe: Path) -> None:
    recipe.write_text("")
    assert load_recipe(SmallRecipe, recipe, ["train.steps=3"]).train.steps == 3


@pytest.mark.parametrize(
    ("override", "nearest"),
    [("train.step=5", "train.steps"), ("trian.steps=5", "train"), ("nmae=x", "name")],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    recipe: Path, override: str, nearest: str
) -> None:
    assert f"did you mean {nearest!r}?" in refusal_of(recipe, override)


def test_an_unknown_key_near_to_none_is_refused_with_all_of_them(recipe: Path) -> None:
    assert refusal_of(recipe, "zzz=1").endswith(
        "known keys are train, name; `--help all` describes them."
    )


def test_a_misspelt_group_is_told_from_a_missing_one(recipe: Path) -> None:
    recipe.write_text("trian:\n  steps: 10\n")
    assert "Unknown key 'trian'" in refusal_of(recipe)
    assert "did you mean 'train'?" in refusal_of(recipe)


def test_a_missing_key_is_refused_with_the_way_to_give_it(recipe: Path) -> None:
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
def test_a_bad_override_is_refused_in_one_sentence(
    recipe: Path, override: str, words: tuple[str, ...]
) -> None:
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
def test_a_file_that_is_no_recipe_is_refused(recipe: Path, content: bytes, problem: str) -> None:
    recipe.write_bytes(content)
    message = refusal_of(recipe)
    assert problem in message and str(recipe) in message and "\n" not in message


def test_a_missing_file_is_refused_with_the_shipped_ones() -> None:
    with pytest.raises(UserError, match=r"no file nowhere/x\.yaml: .* one of .*launch/recipes\."):
        load_recipe(SmallRecipe, Path("nowhere/x.yaml"))
    with pytest.raises(UserError, match=r"did you mean launch/recipes/teacher_base\.yaml\?"):
        load_recipe(SmallRecipe, Path("nowhere/teacher_bas.yaml"))


def test_shipped_recipes_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_shipped(Path("launch/recipes/quickstart_teacher.yaml"), "launch", "recipes")
    assert found.samefile(RECIPES / "quickstart_teacher.yaml")


def test_a_recipe_cannot_be_changed_once_it_is_read(recipe: Path) -> None:
    loaded = load_recipe(SmallRecipe, recipe)
    with pytest.raises(ValueError, match="frozen"):
        loaded.name = "other"


def test_dotted_keys_name_every_leaf() -> None:
    assert list(dotted_keys(SmallRecipe)) == ["train.steps", "train.lr", "name"]
