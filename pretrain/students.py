"""Students: which teacher layers they keep, and the weights they start from."""

import dataclasses
from typing import Literal

from data_prep.errors import UserError
from pretrain.model import Bert, BertShape, initialise

_LAYERS = "bert.encoder.layer."


def choose_layers(layers: list[int] | Literal["alternate"], teacher_layers: int) -> list[int]:
    """Return the teacher layers that a student copies, counted from 0.

    `alternate` keeps every other layer, from the first: half of them (rounded up), which is how
    DistilBERT starts (arXiv 1910.01108, section 3).

    Raises:
        UserError: for more layers than the teacher has, or one that it does not have.
    """
    if layers == "alternate":
        return list(range(0, teacher_layers, 2))
    if len(layers) > teacher_layers or not layers:
        raise UserError(
            f"student.layers names {len(layers)} layers, but the teacher has {teacher_layers}: "
            f"name 1 to {teacher_layers} of them."
        )
    for layer in layers:
        if not 0 <= layer < teacher_layers:
            raise UserError(
                f"student.layers names teacher layer {layer}, but the teacher has layers 0 to "
                f"{teacher_layers - 1}."
            )
    return layers


def check_positions(teacher: BertShape, row_tokens: int) -> None:
    """Refuse rows that are longer than any input the teacher has positions for."""
    if row_tokens > teacher.positions:
        raise UserError(
            f"train.row_tokens {row_tokens} exceeds the teacher's {teacher.positions} positions: "
            f"choose at most {teacher.positions}."
        )


def student_shape(teacher: BertShape, layers: int) -> BertShape:
    """Return the teacher's shape with fewer layers and no next-sentence head.

    The DistilBERT loss does not judge next sentences, and a head that gets no gradient must not
    be published.
    """
    return dataclasses.replace(teacher, layers=layers, next_sentence=False)


def make_student(
    teacher: Bert, layers: list[int], init: Literal["teacher", "random"], seed: int
) -> Bert:
    """Return a student that copies some of its teacher's layers, or starts at random."""
    student = Bert(student_shape(teacher.shape, len(layers)))
    if init == "random":
        initialise(student, seed)
    else:
        _copy_layers(teacher, student, layers)
    return student


def _copy_layers(teacher: Bert, student: Bert, layers: list[int]) -> None:
    theirs = teacher.state_dict()
    own = {}
    for name in student.state_dict():
        source = name
        if name.startswith(_LAYERS):
            number, rest = name.removeprefix(_LAYERS).split(".", 1)
            source = f"{_LAYERS}{layers[int(number)]}.{rest}"
        own[name] = theirs[source]
    student.load_state_dict(own)
