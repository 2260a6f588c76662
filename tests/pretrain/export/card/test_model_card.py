"""The model card: metadata for the hub, objectives, teachers, pooler, and an example that runs."""

import ast
from dataclasses import replace
from typing import Any

import pytest
import yaml

from pretrain.export.card.model_card import CardOptions, write_card
from pretrain.model import Bert, BertShape
from pretrain.run_facts import RunFacts, StartFacts, TeacherFacts
from tests.run_folders import facts_of


def options(**keys: Any) -> CardOptions:
    usual = {"name": "a-model", "location": "a-model", "license": "mit", "languages": ("en",)}
    return CardOptions(**{**usual, **keys})


def student(shape: BertShape, **teacher: Any) -> RunFacts:
    facts = facts_of(Bert(shape), "student", "t" * 16)
    assert facts.teacher is not None
    return replace(facts, teacher=replace(facts.teacher, **teacher))


def header(card: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return loaded


@pytest.mark.parametrize(
    ("pairs", "learned", "score"),
    [
        ("next_sentence", "masked tokens and next sentences.", "next-sentence accuracy | 75.00%"),
        (
            "sentence_order",
            "masked tokens and the order of sentences.",
            "sentence-order accuracy | 75.00%",
        ),
        ("none", "pre-trained on masked tokens.", None),
    ],
)
def test_card_names_objectives(
    tiny_shape: BertShape, pairs: str, learned: str, score: str | None
) -> None:
    """The card names what the model was pre-trained on, by the kind of samples."""
    shape = replace(tiny_shape, next_sentence=pairs != "none")
    facts = facts_of(Bert(shape), "teacher", "t" * 16)
    scores = {**facts.validation, **({"validation/accuracy_nsp": 0.75} if score else {})}
    identity = {**facts.identity, "samples.pairs": pairs}
    facts = replace(facts, identity=identity, validation=scores)
    card = write_card(facts, shape, options(), "[MASK]")
    assert learned in card
    assert score in card if score else "sentence accuracy" not in card
    assert ("pooler was trained with" in card) == (score is not None)


@pytest.mark.parametrize(
    ("changes", "name", "said", "pooler"),
    [
        ({}, "bert", "A BERT with 2 layers", "Its pooler was trained with next-sentence"),
        (
            {"next_sentence": False, "pooler": True},
            "bert",
            "A BERT with",
            "Its pooler is the one of its teacher",
        ),
        ({"next_sentence": False}, "bert", "A BERT with", "add_pooling_layer=False"),
        (
            {"next_sentence": False, "norm": "pre"},
            "megatron-bert",
            "A Megatron-BERT",
            "add_pooling_layer=False",
        ),
        (
            {"next_sentence": False, "token_types": False},
            "distilbert",
            "A DistilBERT with",
            "A DistilBERT has no pooler",
        ),
    ],
)
def test_card_describes_format(
    tiny_shape: BertShape, changes: dict[str, Any], name: str, said: str, pooler: str
) -> None:
    """Tags, summary and the paragraph on the pooler follow from the format."""
    shape = replace(tiny_shape, **changes)
    card = write_card(student(shape), shape, options(), "[MASK]")
    assert header(card)["tags"] == [name, "distillation", "stillhouse"]
    assert said in card
    assert f"| format | {name} |" in card
    assert [
        text for text in ("trained with next", "is the one of its", "no pooler") if text in card
    ]
    assert pooler in card
    assert ("load it without and average" in card) == (pooler == "add_pooling_layer=False")


def test_card_names_teachers(tiny_shape: BertShape) -> None:
    """Teachers stand in the card by name and sha256; base_model only where the hub has them."""
    weights = "+".join(("a" * 64, "b" * 64))
    names = {"names": ["org/big", "teacher"], "hub_names": ["org/big", ""], "weights": weights}
    card = write_card(student(tiny_shape, **names), tiny_shape, options(), "[MASK]")
    assert header(card)["base_model"] == ["org/big"]
    assert "distilled from `org/big` and `teacher` on a general corpus" in card
    assert "| teacher | `org/big` and `teacher`, 1,234,567 parameters |" in card
    assert f"`{'a' * 64}`, `{'b' * 64}`" in card
    # A run of an earlier version states neither.
    card = write_card(student(tiny_shape), tiny_shape, options(), "[MASK]")
    assert "base_model" not in header(card)
    assert "| teacher | 1,234,567 parameters |" in card


def test_card_names_start(tiny_shape: BertShape) -> None:
    """A model that was continued names what it started from, and whose pooler it has."""
    start = StartFacts(
        name="org/base", weights="c" * 64, tokenizer="t" * 16, trained_positions=64,
        hub_name="org/base",
    )  # fmt: skip
    facts = replace(facts_of(Bert(tiny_shape), "teacher", "t" * 16), start=start)
    shape = replace(tiny_shape, next_sentence=False, pooler=True)
    card = write_card(facts, shape, options(), "[MASK]")
    assert header(card)["base_model"] == ["org/base"]
    assert "started from `org/base` and pre-trained on" in card
    assert f"| started from | `org/base`, sha256 `{'c' * 64}` |" in card
    assert "Its pooler is the one of the model that it started from" in card


def test_card_of_student_without_teacher_losses(tiny_shape: BertShape) -> None:
    """A student that no loss of its recipe compares with its teacher is not called distilled."""
    facts = student(tiny_shape, names=["org/big"], hub_names=["org/big"])
    identity = {**facts.identity, "objectives": [{"kind": "hard_mlm", "weight": 1.0}], "stages": []}
    card = write_card(replace(facts, identity=identity), tiny_shape, options(), "[MASK]")
    assert header(card)["tags"] == ["bert", "stillhouse"]
    assert "base_model" not in header(card)
    assert "trained without a teacher" in card


def test_card_states_trained_positions(tiny_shape: BertShape) -> None:
    """The positions that training reached stand beside the longest input, where they are known."""
    facts = facts_of(Bert(tiny_shape), "teacher", "t" * 16)
    card = write_card(replace(facts, trained_positions=32), tiny_shape, options(), "[MASK]")
    assert "| longest input | 64 tokens" in card
    assert "| trained positions | 32 |" in card
    older = write_card(replace(facts, trained_positions=None), tiny_shape, options(), "[MASK]")
    assert "trained positions" not in older


@pytest.mark.parametrize(
    ("languages", "mask", "sentence"),
    [
        (("en",), "<mask>", '"She looked <mask> the window."'),
        (("de",), "[MASK]", '"Sie sah aus dem [MASK]."'),
        (("xh", "ru"), "[MASK]", '"Она посмотрела [MASK] окно."'),
        (("xh",), '"[M]', '"\\"[M]"'),
        ((), "[MASK]", '"[MASK]"'),
    ],
)
def test_example_is_of_language_and_tokenizer(
    tiny_shape: BertShape, languages: tuple[str, ...], mask: str, sentence: str
) -> None:
    """The example has the tokenizer's mask token, in a sentence of the language if there is one."""
    facts = facts_of(Bert(tiny_shape), "teacher", "t" * 16)
    card = write_card(facts, tiny_shape, options(languages=languages), mask)
    assert f"tokenizer({sentence}, return_tensors" in card
    assert ("Put a sentence of its language there" in card) == (set(languages) <= {"xh"})
    assert header(card).get("language", []) == list(languages)


def test_odd_names_stay_valid(tiny_shape: BertShape) -> None:
    """Spaces, quotes and colons in names break neither the metadata nor the example."""
    name = 'my "best": model $x'
    facts = student(tiny_shape)
    card = write_card(
        facts, tiny_shape, options(name=name, location=name, license="a: b"), "[MASK]"
    )
    assert header(card)["license"] == "a: b"
    assert f"# {name}" in card
    code = card.split("```python\n")[1].split("```")[0]
    literals = [n.value for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Constant)]
    assert literals.count(name) == 2


def test_older_teacher_facts_have_no_names() -> None:
    """Facts of an earlier version are read, without names."""
    facts = RunFacts.from_dict({"kind": "student", "teacher_weights": "a" * 64})
    assert facts.teacher == TeacherFacts(weights="a" * 64)
    assert facts.languages == []
