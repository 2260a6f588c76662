"""The kernel of soft_cross_entropy.py: losses of a token, and the gradient of its logits.

A program has one token. It reads the logits of student and teacher, in blocks, twice: for sums and
normalisers, then for divergences and the gradient.
"""

import triton
import triton.language as tl

from pretrain.kernels.triton.vocabulary import biased


@triton.jit
def row_kernel(
    logits,
    teacher_logits,
    gradients,
    bias,
    teacher_bias,
    labels,
    divergences,
    losses,
    correct,
    inverse_temperature,
    forward_share,
    soft_factor,
    hard_factor,
    VOCABULARY: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRIDE: tl.constexpr,
    LARGEST: tl.constexpr,
    IGNORE_INDEX: tl.constexpr,
    GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute the sums of one token, and overwrite its logits with their gradient, if any."""
    row = tl.program_id(0).to(tl.int64)  # a large budget has more than 2^31 logits
    logits += row * COLUMNS
    teacher_logits += row * COLUMNS
    gradients += row * STRIDE
    label = tl.load(labels + row)
    has_label = label != IGNORE_INDEX
    largest, first_largest, total, total_s, cross_s, teacher_largest, total_t = _sums(
        logits, teacher_logits, bias, teacher_bias, inverse_temperature, VOCABULARY, COLUMNS, BLOCK
    )
    in_vocabulary = (label >= 0) & (label < VOCABULARY)  # any other index would read out of bounds
    label_logit = tl.load(logits + label, mask=in_vocabulary, other=0.0)
    label_logit += tl.load(bias + label, mask=in_vocabulary, other=0.0)
    loss = tl.where(in_vocabulary, largest - label_logit + tl.log(total), float("nan"))
    # log (normaliser of the student / normaliser of the teacher)
    log_ratio = (largest - teacher_largest) * inverse_temperature
    log_ratio += tl.log(total_s) - tl.log(total_t)
    reverse = cross_s / total_s - log_ratio
    divergence = 0.0
    for start in range(0, COLUMNS, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        logit = biased(logits, bias, columns, COLUMNS)
        teacher_logit = biased(teacher_logits, teacher_bias, columns, COLUMNS)
        gap = _gap(logit, teacher_logit, columns, VOCABULARY) * inverse_temperature - log_ratio
        logit -= largest
        probability = tl.exp(logit * inverse_temperature) / total_s
        teacher_logit -= teacher_largest
        teacher_probability = tl.exp(teacher_logit * inverse_temperature) / total_t
        forward_terms, reverse_terms = _terms(probability, teacher_probability, gap)
        terms = forward_share * forward_terms + (1.0 - forward_share) * reverse_terms
        divergence += tl.sum(terms, axis=0)
        if GRADIENT:
            # The gradient overwrites this block of logits or earlier ones: all threads of the
            # program must have read it, and `label_logit`.
            tl.debug_barrier()
            mixed = forward_share * (probability - teacher_probability)
            mixed += (1.0 - forward_share) * probability * (gap - reverse)
            hard = tl.exp(logit) / total - tl.where(columns == label, 1.0, 0.0)
            gradient = soft_factor * mixed + hard_factor * hard
            if gradients.dtype.element_ty == tl.float16:
                gradient = tl.clamp(gradient, -LARGEST, LARGEST, tl.PropagateNan.ALL)
            # Padding of the vocabulary has gradient 0.
            gradient = tl.where(has_label & (columns < VOCABULARY), gradient, 0.0)
            tl.store(
                gradients + columns,
                gradient.to(gradients.dtype.element_ty),
                mask=columns < COLUMNS,
            )
    tl.store(divergences + row, tl.where(has_label, divergence, 0.0))
    tl.store(losses + row, tl.where(has_label, loss, 0.0))
    tl.store(correct + row, tl.where(first_largest == label, 1.0, 0.0))


@triton.jit
def _terms(probability, teacher_probability, gap):
    """Return p_T (exp(u) - 1 - u) and p_S (exp(-u) - 1 + u) of the gap u = log p_S - log p_T."""
    # For small u the even and the odd powers of exp(u) - 1 - u, by Horner's rule. What is left out
    # is below u^8 / 10!, 3e-7 at 1: the rounding of the sums without cancellation, at larger u.
    square = gap * gap
    even = 1.0 / 2 + square * (1.0 / 24 + square * (1.0 / 720 + square * (1.0 / 40320)))
    odd = 1.0 / 6 + square * (1.0 / 120 + square * (1.0 / 5040 + square * (1.0 / 362880)))
    small = tl.abs(gap) < 1.0
    difference = probability - teacher_probability
    forward = tl.where(
        small,
        teacher_probability * square * (even + gap * odd),
        difference - teacher_probability * gap,
    )
    reverse = tl.where(
        small, probability * square * (even - gap * odd), probability * gap - difference
    )
    return forward, reverse


@triton.jit
def _sums(
    logits,
    teacher_logits,
    bias,
    teacher_bias,
    inverse_temperature,
    VOCABULARY: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return the sums of a row, in one pass over both of its logits z and z'.

    Returns:
        the largest z and its first index; Σ exp z, Σ exp s and Σ exp s · (s - t), relative to the
        largest; the largest z'; Σ exp t, relative to it. s = z/T, t = z'/T.
    """
    largest = float("-inf")
    teacher_largest = float("-inf")
    first_largest = 0
    total = 0.0
    total_s = 0.0
    total_t = 0.0
    cross_s = 0.0
    for start in range(0, COLUMNS, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        logit = biased(logits, bias, columns, COLUMNS)
        teacher_logit = biased(teacher_logits, teacher_bias, columns, COLUMNS)
        block_largest, block_index = tl.max(logit, axis=0, return_indices=True)
        first_largest = tl.where(block_largest > largest, start + block_index, first_largest)
        # Sums are relative to the largest logit so far, so that no exponent is above 0.
        new_largest = tl.maximum(largest, block_largest)
        new_teacher = tl.maximum(teacher_largest, tl.max(teacher_logit, axis=0))
        rescale = tl.exp((largest - new_largest) * inverse_temperature)
        rescale_t = tl.exp((teacher_largest - new_teacher) * inverse_temperature)
        power = tl.exp((logit - new_largest) * inverse_temperature)
        power_t = tl.exp((teacher_logit - new_teacher) * inverse_temperature)
        gap = _gap(logit, teacher_logit, columns, VOCABULARY) * inverse_temperature
        total *= tl.exp(largest - new_largest)
        total += tl.sum(tl.exp(logit - new_largest), axis=0)
        total_s = total_s * rescale + tl.sum(power, axis=0)
        total_t = total_t * rescale_t + tl.sum(power_t, axis=0)
        cross_s = cross_s * rescale + tl.sum(power * gap, axis=0)
        largest = new_largest
        teacher_largest = new_teacher
    return largest, first_largest, total, total_s, cross_s, teacher_largest, total_t


@triton.jit
def _gap(logit, teacher_logit, columns, VOCABULARY: tl.constexpr):
    """Return the difference of logits; 0 for padding of the vocabulary, where both are -inf."""
    in_vocabulary = columns < VOCABULARY
    return tl.where(in_vocabulary, logit, 0.0) - tl.where(in_vocabulary, teacher_logit, 0.0)
