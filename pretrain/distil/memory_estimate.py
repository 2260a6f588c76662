"""Memory that the layer losses of a distillation step keep until the backward pass.

The teacher's states are freed by then, and so are tiles and buffers of losses: those count only
until the backward pass needs work space of its own, which is larger.
Shapes: N positions, D width.
"""

from collections.abc import Sequence

from pretrain.monitoring.activation_memory import Activations
from pretrain.monitoring.memory_estimate import Part
from pretrain.train.task import StepSpec

_FP32_BYTES = 4
# Tensors [N, D] of a layer. Attention: gradients of queries, keys and values, computed with the
# loss (see precomputed_grad.py). Hidden states: the states and their distance.
_ATTENTION_TENSORS, _HIDDEN_TENSORS = 3, 2


def layer_loss_parts(specs: Sequence[StepSpec], act: Activations) -> list[Part]:
    """Return the line of a memory estimate for the step spec that keeps most, or none.

    Args:
        specs: one of each stage.
        act: activations of the student.
    """
    most = max(layer_loss_bytes(spec, act) for spec in specs)
    return [Part("layer losses", most)] if most else []


def layer_loss_bytes(spec: StepSpec, act: Activations) -> int:
    """Return the bytes that layer losses keep, beyond the activations of the layers."""
    capture = spec.capture
    attention = _ATTENTION_TENSORS * len(capture.attention) * act.shape.width
    # States of a narrower student are projected to the teacher's width.
    width = max([act.shape.width, *(teacher.shape.width for teacher in spec.teacher_passes)])
    hidden = _HIDDEN_TENSORS * len(capture.hidden) * width
    return (attention + hidden) * _FP32_BYTES * act.tokens
