"""Students: their shape, the teacher layers they keep, and the weights they start from."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer
from pretrain.distil.config import StudentOptions
from pretrain.kernels.linear_fp32_out import linear_fp32_out
from pretrain.model import Bert, BertShape, initialise

_LAYERS = "bert.encoder.layer."
_TYPES = "bert.embeddings.token_type_embeddings.weight"
_POSITIONS = "bert.embeddings.position_embeddings.weight"


def student_shape(options: StudentOptions, teacher: BertShape, next_sentence: bool) -> BertShape:
    """Return the shape that a recipe gives a student: its teacher's, but for what it names.

    A head that gets no gradient must not be published, so it has that of next sentences only when
    an objective asks for them.

    Raises:
        UserError: when the heads do not divide the width, or DistilBERT cannot be so.
    """
    named = {key: getattr(options, key) for key in ("width", "heads", "feed_forward")}
    shape = dataclasses.replace(
        teacher,
        layers=_count_layers(options, teacher),
        next_sentence=next_sentence,
        token_types=options.format == "bert",
        **{key: value for key, value in named.items() if value is not None},
    )
    if shape.width % shape.heads:
        raise UserError(
            f"The student's width {shape.width} is not divisible by its {shape.heads} heads: "
            "set student.heads, or another student.width."
        )
    if options.format == "distilbert" and shape.norm != "post":
        raise UserError(
            "student.format distilbert has its LayerNorms after the blocks, but the teacher has "
            "them before (model.norm pre): use student.format bert."
        )
    return shape


def choose_layers(options: StudentOptions, teacher: BertShape) -> list[int]:
    """Return the teacher layers that a student copies, counted from 0; none at random.

    `uniform` spreads them evenly from the first to the last, as DistilBERT's published student
    (0, 2, 4, 7, 9 and 11 of 12).

    Raises:
        UserError: for more layers than the teacher has, or one that it does not have.
    """
    init, total = options.init, teacher.layers
    if init == "random":
        return []
    count = _count_layers(options, teacher)
    if count > total:
        raise UserError(
            f"The student has {count} layers to start from its teacher's, but the teacher has "
            f"{total}: set student.layers to at most {total}, or student.init to random."
        )
    if init == "lower":
        return list(range(count))
    if init == "upper":
        return list(range(total - count, total))
    if init == "uniform":
        return [round(n * (total - 1) / max(count - 1, 1)) for n in range(count)]
    for layer in init:
        if not 0 <= layer < total:
            raise UserError(
                f"student.init names teacher layer {layer}, but the teacher has layers 0 to "
                f"{total - 1}: name these, counted from 0."
            )
    return list(init)


def check_positions(teacher: BertShape, row_tokens: int) -> None:
    """Refuse rows that are longer than any input the teacher has positions for."""
    if row_tokens > teacher.positions:
        raise UserError(
            f"train.row_tokens {row_tokens} exceeds the teacher's {teacher.positions} positions: "
            f"choose at most {teacher.positions}."
        )


def check_vocabulary(teacher: BertShape, tokenizer: LoadedTokenizer) -> None:
    """Refuse a teacher that lacks words of the corpus; more, as of padding, do no harm."""
    if tokenizer.vocab_size > teacher.vocab_size:
        raise UserError(
            f"The teacher knows {teacher.vocab_size} words, but the tokenizer "
            f"{tokenizer.fingerprint} has {tokenizer.vocab_size}: choose a teacher that was "
            "trained with it."
        )


class Projection(nn.Linear):
    """A map of a student's states to its teacher's width, in fp32 whatever comes in."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the projected states."""
        return linear_fp32_out(input, self.weight, self.bias)


def make_student(
    teacher: Bert,
    shape: BertShape,
    layers: Sequence[int],
    seed: int,
    projections: Mapping[str, int] | None = None,
) -> Bert:
    """Return a student that starts from layers of its teacher, or at random where it has none.

    Args:
        teacher: whose vocabulary and positions it shares.
        shape: of the student.
        layers: of the teacher, one for each of the student's; empty starts at random.
        seed: of what is drawn.
        projections: maps that lead from its width to another, by name; see `Bert.projections`.

    Raises:
        UserError: when the student is wider than the layers that it starts from.
    """
    student = Bert(shape)
    for name, width in (projections or {}).items():
        student.projections[name] = Projection(shape.width, width)
    initialise(student, seed)
    if layers:
        _check_narrower(teacher.shape, shape)
        _copy(teacher, student, layers)
    return student


def _count_layers(options: StudentOptions, teacher: BertShape) -> int:
    named = len(options.init) if isinstance(options.init, list) else options.layers
    return named or (teacher.layers + 1) // 2


def _check_narrower(teacher: BertShape, student: BertShape) -> None:
    for key, own, most in (
        ("width", student.width, teacher.width),
        ("heads", student.heads, teacher.heads),
        ("width / student.heads", student.width // student.heads, teacher.width // teacher.heads),
        ("feed_forward", student.feed_forward, teacher.feed_forward),
    ):
        if own > most:
            raise UserError(
                f"student.{key} is {own}, more than the teacher's {most}, so there are no weights "
                "to start from: make it smaller, or set student.init=random."
            )


def _copy(teacher: Bert, student: Bert, layers: Sequence[int]) -> None:
    """Copy the leading part of the teacher's weights; of attention, that of each leading head."""
    theirs = teacher.state_dict()
    if not student.shape.token_types and teacher.shape.token_types:
        # Without segments, all is in the first one: its embedding joins those of the places.
        theirs[_POSITIONS] = theirs[_POSITIONS] + theirs[_TYPES][0]
    own = student.state_dict()
    for name, weight in own.items():
        # What the teacher does not have stays as it was drawn: projections, perhaps a head.
        if (whole := theirs.get(_source(name, layers))) is not None:
            weight.copy_(_cut(name, whole, weight, teacher, student))


def _source(name: str, layers: Sequence[int]) -> str:
    if not name.startswith(_LAYERS):
        return name
    number, rest = name.removeprefix(_LAYERS).split(".", 1)
    return f"{_LAYERS}{layers[int(number)]}.{rest}"


def _cut(
    name: str, whole: torch.Tensor, part: torch.Tensor, teacher: Bert, student: Bert
) -> torch.Tensor:
    kept = [torch.arange(size) for size in part.shape]
    heads = _kept_of_heads(teacher.shape, student.shape)
    if ".attention.self." in name:
        kept[0] = heads
    elif name.endswith(".attention.output.dense.weight"):
        kept[1] = heads
    for axis, places in enumerate(kept):
        whole = whole.index_select(axis, places)
    return whole


def _kept_of_heads(teacher: BertShape, student: BertShape) -> torch.Tensor:
    """Return the places, among the teacher's heads side by side, of what the student keeps."""
    wide, narrow = (shape.width // shape.heads for shape in (teacher, student))
    return (torch.arange(student.heads)[:, None] * wide + torch.arange(narrow)).flatten()
