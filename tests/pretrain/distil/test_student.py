"""Students: shape, layers to copy, initial weights, and options that are refused."""

import dataclasses
from typing import Any

import pytest
import torch

from data_prep.errors import UserError
from pretrain.distil.config import StudentOptions
from pretrain.distil.student import choose_layers, make_student, student_shape
from pretrain.model import Bert, BertShape, initialise

LAYER = "bert.encoder.layer."


@pytest.fixture
def teacher(tiny_shape: BertShape) -> Bert:
    """Return a teacher of five layers, no two parameters of which are equal."""
    teacher = Bert(dataclasses.replace(tiny_shape, layers=5))
    generator = torch.Generator().manual_seed(0)
    for parameter in teacher.parameters():
        parameter.data.normal_(generator=generator)
    return teacher


def options(**keys: Any) -> StudentOptions:
    return StudentOptions.model_validate(keys)


def with_layers(shape: BertShape, layers: int) -> BertShape:
    return dataclasses.replace(shape, layers=layers)


@pytest.mark.parametrize(
    ("init", "layers", "teacher_layers", "kept"),
    [
        ("uniform", 6, 12, [0, 2, 4, 7, 9, 11]),
        ("uniform", None, 5, [0, 2, 4]),
        ("uniform", 1, 5, [0]),
        ("uniform", 5, 5, [0, 1, 2, 3, 4]),
        ("lower", 2, 5, [0, 1]),
        ("upper", 2, 5, [3, 4]),
        ([4, 0, 2], None, 5, [4, 0, 2]),
        ([1, 1], 2, 5, [1, 1]),
        ("random", 3, 5, []),
    ],
)
def test_choose_layers(
    tiny_shape: BertShape, init: Any, layers: int | None, teacher_layers: int, kept: list[int]
) -> None:
    """Each value of `init` selects its teacher layers."""
    assert (
        choose_layers(options(init=init, layers=layers), with_layers(tiny_shape, teacher_layers))
        == kept
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"init": [0, 1, 2, 0]}, "has 4 layers to copy from its teacher, but the teacher has 3"),
        ({"layers": 4}, "has 4 layers .* but the teacher has 3: set student.layers to at most 3"),
        ({"init": [0, 3]}, "names teacher layer 3, but the teacher has layers 0 to 2"),
        ({"init": [-1]}, "names teacher layer -1, but"),
    ],
)
def test_missing_teacher_layers_refused(
    tiny_shape: BertShape, keys: dict[str, Any], message: str
) -> None:
    """Layers that the teacher does not have are refused."""
    with pytest.raises(UserError, match=message):
        choose_layers(options(**keys), with_layers(tiny_shape, 3))


def test_student_shape_defaults_to_teacher(tiny_shape: BertShape) -> None:
    """A student has its teacher's shape except for the keys of its recipe."""
    shape = student_shape(options(), tiny_shape, next_sentence=False)
    assert shape == dataclasses.replace(tiny_shape, layers=1, next_sentence=False, pooler=True)
    named = {"layers": 7, "width": 24, "heads": 3, "feed_forward": 40}
    shape = student_shape(options(**named, init="random"), tiny_shape, next_sentence=True)
    assert shape == dataclasses.replace(tiny_shape, **named)


@pytest.mark.parametrize(
    ("keys", "change", "message"),
    [
        ({"width": 30}, {}, "width 30 is not divisible by its 4 heads"),
        ({"format": "distilbert"}, {"norm": "pre"}, "distilbert is post-norm"),
    ],
)
def test_invalid_student_shapes_refused(
    tiny_shape: BertShape, keys: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    """Shapes that cannot be built or published are refused."""
    with pytest.raises(UserError, match=message):
        student_shape(options(**keys), dataclasses.replace(tiny_shape, **change), False)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"width": 64}, "student.width is 64, more than the teacher's 32"),
        ({"heads": 8}, "student.heads is 8, more than the teacher's 4"),
        ({"width": 32, "heads": 2}, "student.width / student.heads is 16, more than the .* 8"),
        ({"feed_forward": 65}, "student.feed_forward is 65, more than the teacher's 64"),
    ],
)
def test_student_wider_than_teacher_refused(
    teacher: Bert, keys: dict[str, Any], message: str
) -> None:
    """A student larger than the weights it copies is refused; with random weights it is not."""
    shape = student_shape(options(layers=1, **keys), teacher.shape, False)
    with pytest.raises(UserError, match=message):
        make_student(teacher, shape, [0], seed=0)
    make_student(teacher, shape, [], seed=0)


def test_student_copies_named_layers(teacher: Bert) -> None:
    """A student is initialised with copies of the teacher layers it names."""
    shape = student_shape(options(init=[3, 0]), teacher.shape, False)
    student = make_student(teacher, shape, [3, 0], seed=0)
    theirs, own = teacher.state_dict(), student.state_dict()
    for name, weight in own.items():
        source = name
        for number, layer in enumerate((3, 0)):
            if name.startswith(f"{LAYER}{number}."):
                source = name.replace(f"{LAYER}{number}.", f"{LAYER}{layer}.", 1)
        assert torch.equal(weight, theirs[source]), name
    assert sum(name.startswith(LAYER) for name in own) == 2 * 16


def test_narrower_student_slices_every_head(teacher: Bert) -> None:
    """A narrower student copies leading dimensions, in attention those of every head."""
    keys = {"width": 16, "feed_forward": 24, "init": [2]}
    shape = student_shape(options(**keys), teacher.shape, False)
    own = make_student(teacher, shape, [2], seed=0).state_dict()
    theirs = teacher.state_dict()
    inner = "0.intermediate.dense.weight"
    assert torch.equal(own[LAYER + inner], theirs[f"{LAYER}2.intermediate.dense.weight"][:24, :16])
    query, output = (f"attention.{part}.weight" for part in ("self.query", "output.dense"))
    # Four heads of 8 in the teacher, of 4 in the student.
    heads = theirs[f"{LAYER}2.{query}"].view(4, 8, 32)
    assert torch.equal(own[f"{LAYER}0.{query}"], heads[:, :4, :16].reshape(16, 16))
    heads = theirs[f"{LAYER}2.{output}"].view(32, 4, 8)
    assert torch.equal(own[f"{LAYER}0.{output}"], heads[:16, :, :4].reshape(16, 16))


def test_heads_of_same_width_copied_whole(teacher: Bert) -> None:
    """Fewer heads of the same width are copied whole."""
    shape = student_shape(options(width=16, heads=2, init=[1]), teacher.shape, False)
    own = make_student(teacher, shape, [1], seed=0).state_dict()
    name = "attention.self.value.bias"
    assert torch.equal(own[f"{LAYER}0.{name}"], teacher.state_dict()[f"{LAYER}1.{name}"][:16])


def test_token_type_embedding_added_to_positions(teacher: Bert) -> None:
    """Without token types, the embedding of type 0 is added to the position embeddings."""
    shape = student_shape(options(format="distilbert", init=[0]), teacher.shape, False)
    own = make_student(teacher, shape, [0], seed=0).state_dict()
    theirs, prefix = teacher.state_dict(), "bert.embeddings."
    assert not any("token_type" in name or "pooler" in name for name in own)
    segment = theirs[f"{prefix}token_type_embeddings.weight"][0]
    positions = f"{prefix}position_embeddings.weight"
    assert torch.equal(own[positions], theirs[positions] + segment)


def test_fewer_positions_are_the_first(teacher: Bert) -> None:
    """A student with fewer positions copies the first of its teacher, and has no more."""
    shape = student_shape(options(positions=48, init=[0]), teacher.shape, False)
    own = make_student(teacher, shape, [0], seed=0).state_dict()
    name = "bert.embeddings.position_embeddings.weight"
    assert torch.equal(own[name], teacher.state_dict()[name][:48])
    longer = student_shape(options(positions=128, init=[0]), teacher.shape, False)
    with pytest.raises(UserError, match=r"student\.positions is 128, more than the teacher's 64"):
        make_student(teacher, longer, [0], seed=0)


def test_weights_missing_in_teacher_are_random(tiny_shape: BertShape) -> None:
    """Weights that the teacher does not have are initialised at random."""
    plain = Bert(dataclasses.replace(tiny_shape, next_sentence=False, token_types=False))
    initialise(plain, seed=1)
    shape = student_shape(options(init=[0]), plain.shape, next_sentence=True)
    student = make_student(plain, shape, [0], seed=3)
    drawn = Bert(shape)
    initialise(drawn, seed=3)
    for part in ("pooler.dense.weight", "embeddings.token_type_embeddings.weight"):
        assert torch.equal(student.state_dict()[f"bert.{part}"], drawn.state_dict()[f"bert.{part}"])


def test_student_shares_no_memory_with_teacher(teacher: Bert) -> None:
    """Changing the student's weights leaves the teacher's as they are."""
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    shape = student_shape(options(init=[1]), teacher.shape, False)
    student = make_student(teacher, shape, [1], seed=0)
    for parameter in student.parameters():
        parameter.data.zero_()
    assert all(torch.equal(before[name], w) for name, w in teacher.state_dict().items())


def test_random_student_copies_no_weight(teacher: Bert) -> None:
    """A student with random weights copies nothing from its teacher but the pooler.

    The pooler does not move the draws of the others, so that a seed gives the same student whether
    its teacher has one or not.
    """
    shape = student_shape(options(layers=2), teacher.shape, False)
    own = make_student(teacher, shape, [], seed=7).state_dict()
    expected = Bert(dataclasses.replace(shape, pooler=False))
    initialise(expected, seed=7)
    for name, weight in expected.state_dict().items():
        assert torch.equal(own[name], weight)
    for name in own.keys() - expected.state_dict().keys():
        assert name.startswith("bert.pooler.")
        assert torch.equal(own[name], teacher.state_dict()[name])


@pytest.mark.parametrize(
    ("keys", "teacher_has", "next_sentence", "keeps"),
    [
        ({}, {}, False, True),
        ({"init": "random", "layers": 2}, {}, False, True),
        ({"feed_forward": 24}, {}, False, True),
        ({}, {"next_sentence": False, "pooler": True}, False, True),
        ({"width": 16}, {}, False, False),
        ({"format": "distilbert"}, {}, False, False),
        ({}, {"next_sentence": False}, False, False),
        # Its own loss trains it: then it is no weight that is only kept.
        ({}, {}, True, False),
    ],
)
def test_student_keeps_pooler_of_equal_width(
    tiny_shape: BertShape,
    keys: dict[str, Any],
    teacher_has: dict[str, bool],
    next_sentence: bool,
    keeps: bool,
) -> None:
    """A student that trains no pooler has its teacher's where their widths agree."""
    teacher = Bert(dataclasses.replace(tiny_shape, **teacher_has))
    shape = student_shape(options(**keys), teacher.shape, next_sentence)
    assert shape.pooler == keeps
    student = make_student(teacher, shape, choose_layers(options(**keys), teacher.shape), seed=0)
    kept = student.detach_unused_pooler()
    assert set(kept) == ({"bert.pooler.dense.weight", "bert.pooler.dense.bias"} if keeps else set())
    for name, weight in kept.items():
        assert torch.equal(weight, teacher.state_dict()[name])
    assert student.detach_unused_pooler() == {}, "it is detached once"
    assert any("pooler" in name for name in student.state_dict()) == next_sentence


def test_projections_not_counted_as_parameters(teacher: Bert) -> None:
    """Projections are part of the state dict but not of the parameter count."""
    shape = student_shape(options(layers=2, width=16), teacher.shape, False)
    plain = make_student(teacher, shape, [0, 4], seed=0)
    mapped = make_student(teacher, shape, [0, 4], seed=0, projections={"layer2_to_5": 32})
    extra = set(mapped.state_dict()) - set(plain.state_dict())
    assert extra == {"projections.layer2_to_5.weight", "projections.layer2_to_5.bias"}
    assert mapped.projections["layer2_to_5"].weight.shape == (32, 16)
    assert mapped.count_parameters() == plain.count_parameters()
