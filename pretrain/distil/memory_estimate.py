"""Memory of the losses of a distillation step, beyond what a pre-training step needs.

Layer losses keep tensors until the backward pass. The teacher's states are freed by then, and so
are tiles of these losses: those count only until the backward pass needs work space of its own,
which is larger.

Soft targets at masked tokens by a fused kernel need what its MLM loss would. Those at all tokens
come in addition to it, and averaged teachers are compared in chunks of tokens
(losses/token_chunks.py), whose work space may be larger than that of a backward pass.
Shapes: N positions, M masked tokens, D width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace

from pretrain.losses.token_chunks import chunk_bytes, rows_of_chunk
from pretrain.model import BertShape
from pretrain.monitoring.activation_memory import (
    FP32_BYTES,
    Activations,
    head_space,
    layer_space,
    saved_by_heads,
)
from pretrain.monitoring.memory_estimate import Part
from pretrain.train.task import StepSpec

# Tensors [N, D] of a layer. Attention: gradients of queries, keys and values, computed with the
# loss (see precomputed_grad.py). Hidden states: the states and their distance.
_ATTENTION_TENSORS, _HIDDEN_TENSORS = 3, 2


def loss_parts(specs: Sequence[StepSpec], act: Activations) -> list[Part]:
    """Return the lines of a memory estimate for the step specs that need most, or none.

    Args:
        specs: one of each stage.
        act: activations of the student.
    """
    # The work space of a backward pass is in the estimate already.
    space = max(head_space(act), layer_space(act))
    most = max(
        bytes_kept_by_soft_targets(spec, act) + max(0, soft_target_space(spec, act) - space)
        for spec in specs
    )
    return layer_loss_parts(specs, act) + ([Part("soft targets", most)] if most else [])


def bytes_kept_by_soft_targets(spec: StepSpec, act: Activations) -> int:
    """Return what the soft-target loss keeps until the backward pass, beyond the MLM loss."""
    if not (teachers := _teachers_with_head(spec)):
        return 0
    mlm = saved_by_heads(act)
    states = mlm["last hidden states"] + mlm["transformed states"]
    if not spec.logits_at_all_tokens:  # one loss in place of the other
        return max(0, _kept_bytes(act, act.masked, len(teachers)) + states - sum(mlm.values()))
    transformed = saved_by_heads(replace(act, masked=act.tokens))["transformed states"]
    return _kept_bytes(act, act.tokens, len(teachers)) + transformed


def soft_target_space(spec: StepSpec, act: Activations) -> int:
    """Return what the soft-target loss allocates for a moment: outputs of teachers, a chunk."""
    teachers = _teachers_with_head(spec)
    tokens = act.tokens if spec.logits_at_all_tokens else act.masked
    # Last hidden states, and those at some tokens before and after the transform of the MLM head.
    outputs = (act.tokens + 2 * tokens) * sum(shape.width for shape in teachers) * act.element
    if not teachers or _is_fused(act, len(teachers)):
        return outputs + head_space(act)
    return outputs + chunk_bytes(tokens, act.shape.vocab_size)


def _teachers_with_head(spec: StepSpec) -> list[BertShape]:
    return [teacher.shape for teacher in spec.teacher_passes if teacher.has_mlm_head]


def _is_fused(act: Activations, teachers: int) -> bool:
    return act.chunks_logits and teachers == 1


def _kept_bytes(act: Activations, tokens: int, teachers: int) -> int:
    """Return what a soft-target loss at some tokens keeps until the backward pass."""
    vocab_size, width = act.shape.vocab_size, act.shape.width
    if _is_fused(act, teachers) or tokens > rows_of_chunk(vocab_size):
        # Gradients in fp32, that of the hidden states in place of these.
        return FP32_BYTES * (width + 1) * vocab_size + (FP32_BYTES - act.element) * tokens * width
    # The gradient of the divergence, and the log-probabilities of the MLM loss.
    return 2 * FP32_BYTES * tokens * vocab_size


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
    return (attention + hidden) * FP32_BYTES * act.tokens
