"""What comparing a student's layers with its teacher's keeps in memory, until the backward pass.

The teacher's states are gone by then, and tiles and buffers of losses too: these come on top only
while the backward pass needs no work space of its own, which is larger.
Shapes: N places, D width.
"""

from collections.abc import Sequence

from pretrain.monitoring.memory_estimate import Activations, Part
from pretrain.train.task import StepSpec

_FP32 = 4
# Of queries, keys and values, where an objective compares all three: their gradients, found along
# with the loss (see known_gradients.py). Of hidden states: themselves and their distance.
_OF_ATTENTION, _OF_HIDDEN = 3, 2


def compared_parts(lessons: Sequence[StepSpec], act: Activations) -> list[Part]:
    """Return the line of a forecast, for the lesson that keeps most; none where none compares.

    Args:
        lessons: of a run.
        act: of the student.
    """
    most = max(saved_by_comparison(lesson, act) for lesson in lessons)
    return [Part("compared with the teacher", most)] if most else []


def saved_by_comparison(lesson: StepSpec, act: Activations) -> int:
    """Return the bytes that the objectives of a lesson keep, beside what the layers do."""
    wanted = lesson.capture
    attention = _OF_ATTENTION * len(wanted.attention) * act.shape.width
    # Those of a narrower student are projected first.
    widths = [act.shape.width, *(asked.shape.width for asked in lesson.teacher_passes)]
    return (attention + _OF_HIDDEN * len(wanted.hidden) * max(widths)) * _FP32 * act.tokens
