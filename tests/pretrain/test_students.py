"""Students: the layers they copy, the weights they start from, the requests they refuse."""

import dataclasses

import pytest
import torch

from data_prep.errors import UserError
from pretrain.model import Bert, BertShape, initialise
from pretrain.students import choose_layers, make_student, student_shape

LAYER = "bert.encoder.layer."


@pytest.fixture
def teacher(tiny_shape: BertShape) -> Bert:
    """Return a teacher of five layers, no two parameters of which are equal."""
    teacher = Bert(dataclasses.replace(tiny_shape, layers=5))
    generator = torch.Generator().manual_seed(0)
    for parameter in teacher.parameters():
        parameter.data.normal_(generator=generator)
    return teacher


@pytest.mark.parametrize(
    ("teacher_layers", "kept"), [(12, [0, 2, 4, 6, 8, 10]), (5, [0, 2, 4]), (2, [0]), (1, [0])]
)
def test_alternate_keeps_every_other_layer_from_the_first(
    teacher_layers: int, kept: list[int]
) -> None:
    assert choose_layers("alternate", teacher_layers) == kept


def test_named_layers_are_taken_in_the_order_they_are_named() -> None:
    assert choose_layers([4, 0, 2], 5) == [4, 0, 2]
    assert choose_layers([0, 1, 2, 3, 4], 5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([0, 1, 2, 0], "names 4 layers, but the teacher has 3: name 1 to 3 of them"),
        ([], "names 0 layers, but the teacher has 3"),
        ([0, 3], "names teacher layer 3, but the teacher has layers 0 to 2"),
        ([-1], "names teacher layer -1, but"),
    ],
)
def test_layers_that_the_teacher_lacks_are_refused(layers: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_layers(layers, 3)


def test_a_student_has_its_teachers_shape_but_fewer_layers_and_one_head(teacher: Bert) -> None:
    expected = dataclasses.replace(teacher.shape, layers=2, next_sentence=False)
    assert student_shape(teacher.shape, 2) == expected
    assert make_student(teacher, [0, 3], "teacher", seed=0).shape == expected


def test_a_student_starts_with_copies_of_the_layers_it_names(teacher: Bert) -> None:
    student = make_student(teacher, [3, 0], "teacher", seed=0)
    theirs, own = teacher.state_dict(), student.state_dict()
    for name, weight in own.items():
        source = name
        for number, layer in enumerate((3, 0)):
            if name.startswith(f"{LAYER}{number}."):
                source = name.replace(f"{LAYER}{number}.", f"{LAYER}{layer}.", 1)
        assert torch.equal(weight, theirs[source]), name
    assert sum(name.startswith(LAYER) for name in own) == 2 * 16


def test_a_student_learns_without_changing_its_teacher(teacher: Bert) -> None:
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    student = make_student(teacher, [1], "teacher", seed=0)
    for parameter in student.parameters():
        parameter.data.zero_()
    assert all(torch.equal(before[name], w) for name, w in teacher.state_dict().items())


def test_a_random_student_takes_nothing_but_the_shape(teacher: Bert) -> None:
    student = make_student(teacher, [0, 2], "random", seed=7)
    expected = Bert(student_shape(teacher.shape, 2))
    initialise(expected, seed=7)
    for name, weight in expected.state_dict().items():
        assert torch.equal(student.state_dict()[name], weight)
