"""Students: shape, teacher layers to copy, and initial weights."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer
from pretrain.distil.config import StudentOptions
from pretrain.kernels.linear_fp32_out import linear_fp32_out
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.foreign.hf_config import ForeignAttention
from pretrain.model.loading import LocatedModel

_LAYERS = "bert.encoder.layer."
_TYPES = "bert.embeddings.token_type_embeddings.weight"
_POSITIONS = "bert.embeddings.position_embeddings.weight"


def student_shape(options: StudentOptions, teacher: BertShape, next_sentence: bool) -> BertShape:
    """Return the shape of a student: its teacher's, overridden by the keys of its recipe.

    Args:
        options: group `student` of the recipe.
        teacher: shape of the (first) teacher.
        next_sentence: whether an objective trains the NSP head; a head without gradients must not
            be published.

    Raises:
        UserError: when the heads do not divide the width, or DistilBERT has no such shape.
    """
    keys = ("width", "heads", "feed_forward", "positions")
    overrides = {key: getattr(options, key) for key in keys}
    shape = dataclasses.replace(
        teacher,
        layers=_count_layers(options, teacher),
        next_sentence=next_sentence,
        token_types=options.format == "bert",
        tied_decoder=True,
        **{key: value for key, value in overrides.items() if value is not None},
    )
    shape = dataclasses.replace(shape, pooler=_keeps_pooler(shape, teacher))
    if shape.width % shape.heads:
        raise UserError(
            f"The student's width {shape.width} is not divisible by its {shape.heads} heads: "
            "set student.heads, or another student.width."
        )
    if options.format == "distilbert" and shape.norm != "post":
        raise UserError(
            "student.format distilbert is post-norm, but the teacher is pre-norm (model.norm "
            "pre): use student.format bert."
        )
    return shape


def choose_layers(
    options: StudentOptions, teacher: BertShape, foreign: ForeignAttention | None = None
) -> list[int]:
    """Return the teacher layers that a student copies, counted from 0; empty for random weights.

    `uniform` spreads them evenly from the first to the last, as DistilBERT's published student
    (0, 2, 4, 7, 9 and 11 of 12).

    Raises:
        UserError: for more layers than the teacher has, or one that it does not have, and for a
            teacher whose layers are not those of a BERT.
    """
    init, total = options.init, teacher.layers
    if init == "random":
        return []
    if foreign is not None:
        raise UserError(
            f"student.init copies layers of a BERT, but the teacher is of type "
            f"{foreign.model_type}: set student.init=random."
        )
    count = _count_layers(options, teacher)
    if count > total:
        raise UserError(
            f"The student has {count} layers to copy from its teacher, but the teacher has "
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


def check_positions(teacher: LocatedModel, row_tokens: int, longest: int) -> None:
    """Check that a teacher has, and has trained, the positions that it will compute.

    Args:
        teacher: the located model.
        row_tokens: of the longest rows of the run.
        longest: tokens of the longest sample in them.

    Raises:
        UserError: for longer rows than the teacher's positions, or samples beyond those trained.
    """
    positions, trained = teacher.shape.positions, teacher.trained_positions
    if row_tokens > positions:
        raise UserError(
            f"train.row_tokens {row_tokens} exceeds the teacher's {positions} positions: "
            f"choose at most {positions}."
        )
    if longest > trained:
        raise UserError(
            f"train.row_tokens {row_tokens} exceeds the {trained} positions that the teacher was "
            f"trained on, though it has {positions}: choose at most {trained}, or train the "
            "teacher on longer rows."
        )


def check_student_positions(student: BertShape, row_tokens: int) -> None:
    """Raise UserError for rows longer than the student's position embeddings."""
    if row_tokens > student.positions:
        raise UserError(
            f"train.row_tokens {row_tokens} exceeds student.positions {student.positions}: "
            "choose shorter rows, or more positions."
        )


def check_vocabulary(teacher: BertShape, tokenizer: LoadedTokenizer) -> None:
    """Raise UserError for a teacher whose vocabulary is smaller than the tokenizer's.

    A larger one is fine: many are padded.
    """
    if tokenizer.vocab_size > teacher.vocab_size:
        raise UserError(
            f"The teacher has a vocabulary of {teacher.vocab_size} tokens, but the tokenizer "
            f"{tokenizer.fingerprint} has {tokenizer.vocab_size}: choose a teacher that was "
            "trained with it."
        )


class Projection(nn.Linear):
    """A linear map of a student's states to its teacher's width, with fp32 outputs."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the projected states."""
        return linear_fp32_out(input, self.weight, self.bias)


def make_student(
    teacher: Bert | None,
    shape: BertShape,
    layers: Sequence[int],
    seed: int,
    projections: Mapping[str, int] | None = None,
) -> Bert:
    """Return a student initialised from layers of its teacher, or at random.

    Args:
        teacher: model with the same vocabulary; None where nothing is copied of it.
        shape: of the student.
        layers: teacher layer to copy for each of the student's; empty for random weights.
        seed: of random weights.
        projections: output widths of its projections, by name; see `Bert.projections`.

    Raises:
        UserError: when the student is wider than the layers it copies.
    """
    student = Bert(shape)
    for name, width in (projections or {}).items():
        student.projections[name] = Projection(shape.width, width)
    initialise(student, seed)
    if teacher is None:
        return student
    if shape.pooler:
        student.bert.pooler.load_state_dict(teacher.bert.pooler.state_dict())
    if layers:
        _check_narrower(teacher.shape, shape)
        _copy(teacher, student, layers)
    return student


def _keeps_pooler(student: BertShape, teacher: BertShape) -> bool:
    """Return whether a student has its teacher's pooler, which none of its losses trains.

    `AutoModel` would draw a new one at every load. Of another width it would be no trained pooler.
    """
    trains_its_own = student.next_sentence
    fits = student.token_types and student.width == teacher.width
    return teacher.has_pooler and fits and not trains_its_own


def _count_layers(options: StudentOptions, teacher: BertShape) -> int:
    layers = len(options.init) if isinstance(options.init, list) else options.layers
    return layers or (teacher.layers + 1) // 2


def _check_narrower(teacher: BertShape, student: BertShape) -> None:
    for key, value, limit in (
        ("width", student.width, teacher.width),
        ("heads", student.heads, teacher.heads),
        ("width / student.heads", student.width // student.heads, teacher.width // teacher.heads),
        ("feed_forward", student.feed_forward, teacher.feed_forward),
        ("positions", student.positions, teacher.positions),
    ):
        if value > limit:
            raise UserError(
                f"student.{key} is {value}, more than the teacher's {limit}, so there are no "
                "weights to copy: make it smaller, or set student.init=random."
            )


def _copy(teacher: Bert, student: Bert, layers: Sequence[int]) -> None:
    """Copy the leading slice of every teacher weight; in attention, of each leading head."""
    source = teacher.state_dict()
    if not student.shape.token_types and teacher.shape.token_types:
        # Without token types, every token is of type 0: add its embedding to the positions'.
        source[_POSITIONS] = source[_POSITIONS] + source[_TYPES][0]
    for name, weight in student.state_dict().items():
        # Weights that the teacher lacks stay random: projections, perhaps a head.
        if (whole := source.get(_source_name(name, layers))) is not None:
            weight.copy_(_leading_slice(name, whole, weight, teacher, student))


def _source_name(name: str, layers: Sequence[int]) -> str:
    if not name.startswith(_LAYERS):
        return name
    number, rest = name.removeprefix(_LAYERS).split(".", 1)
    return f"{_LAYERS}{layers[int(number)]}.{rest}"


def _leading_slice(
    name: str, whole: torch.Tensor, part: torch.Tensor, teacher: Bert, student: Bert
) -> torch.Tensor:
    indices = [torch.arange(size) for size in part.shape]
    head_indices = _head_indices(teacher.shape, student.shape)
    if ".attention.self." in name:
        indices[0] = head_indices
    elif name.endswith(".attention.output.dense.weight"):
        indices[1] = head_indices
    for axis, kept in enumerate(indices):
        whole = whole.index_select(axis, kept)
    return whole


def _head_indices(teacher: BertShape, student: BertShape) -> torch.Tensor:
    """Return the indices, in the teacher's concatenated heads, that the student copies."""
    wide, narrow = (shape.width // shape.heads for shape in (teacher, student))
    return (torch.arange(student.heads)[:, None] * wide + torch.arange(narrow)).flatten()
