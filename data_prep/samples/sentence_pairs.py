"""Sentence pairs: turn the documents of a shard into training samples.

`next_sentence` (BERT, arXiv 1810.04805, 3.1): `[CLS] A [SEP] B [SEP]`. A segment is split into A
and B between two sentences. In half of the samples B is what follows A; in the other half B is an
NSP negative, a segment of another document, and what followed A starts the next sample.

`sentence_order` (ALBERT, arXiv 1909.11942, 3.1): A and B always follow one another in the text;
in half of the samples they are swapped.

`none` (RoBERTa, arXiv 1907.11692, 4.2): `[CLS] A [SEP]`, one segment of one document.

Each kind uses every token of the text once, apart from the beginning of a sentence that a full row
cut.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array, Shard
from data_prep.counter_rng import hash64, integers_below, key_of, uniform
from data_prep.samples.nsp_negatives import draw_nsp_negatives
from data_prep.samples.segments import (
    BoolArray,
    CandidateSegments,
    SegmentRules,
    Segments,
    walk,
)

Pairs = Literal["next_sentence", "sentence_order", "none"]

SPECIALS_PER_PAIR = 3  # [CLS] A [SEP] B [SEP]
SPECIALS_ALONE = 2  # [CLS] A [SEP]
SAMPLE = np.dtype(
    [
        ("a_start", "<i8"),
        ("b_start", "<i8"),
        ("a_length", "<u2"),
        ("b_length", "<u2"),  # 0 in a sample of a single segment
        ("is_next", "<u2"),  # 0 where B is an NSP negative or the two are swapped
    ]
)
SampleArray = npt.NDArray[np.void]

# Labels are balanced within classes of A's length, four to an octave.
_CLASSES_PER_OCTAVE = 4
_CLASSES = 17 * _CLASSES_PER_OCTAVE
_BALANCING_WALKS = 3


def make_samples(
    shard: Shard,
    negatives: Shard,
    row_tokens: int,
    seed: int,
    epoch: int,
    *,
    pairs: Pairs = "next_sentence",
    short_share: float = 0.0,
    repetition: int = 0,
    documents: BoolArray | None = None,
) -> SampleArray:
    """Return the samples of one shard in document order.

    Args:
        shard: whose documents are cut.
        negatives: where NSP negatives come from; `shard` itself when it has several documents.
        row_tokens: longest sample, its special tokens included.
        seed: part of the key of every draw, as are the epoch, the repetition and the shard's name.
        epoch: see `seed`.
        pairs: what a sample is.
        short_share: share of the segments that have a shorter target length.
        repetition: how often the epoch has taken these documents before.
        documents: mask of the documents to use, [documents of the shard]; None takes all.
    """
    max_tokens = row_tokens - (SPECIALS_ALONE if pairs == "none" else SPECIALS_PER_PAIR)
    rules = SegmentRules(
        max_tokens=max_tokens,
        # Half a row, so that a full pair can always be split.
        max_sentence_tokens=max_tokens if pairs == "none" else max_tokens // 2,
        short_share=short_share,
        key_parts=(seed, epoch, repetition, shard.counts.name),
    )
    candidates = CandidateSegments(shard, rules)
    if pairs == "next_sentence":
        return _next_sentence(candidates, rules, shard, negatives, documents)
    segments = _of_documents(candidates.segments[walk(candidates.next_first)], documents)
    samples = _single(segments) if pairs == "none" else _sentence_order(candidates, segments, rules)
    for field in ("a_start", "b_start"):
        samples[field] += shard.token_base
    return samples


def sample_tokens(samples: SampleArray) -> Int64Array:
    """Return the length of each sample, its special tokens included."""
    b_length = samples["b_length"].astype(np.int64)
    specials = np.where(b_length > 0, SPECIALS_PER_PAIR, SPECIALS_ALONE)
    return samples["a_length"] + b_length + specials


def _of_documents(segments: Segments, documents: BoolArray | None) -> Segments:
    return segments if documents is None else segments[documents[segments.document]]


def _single(segments: Segments) -> SampleArray:
    samples = np.zeros(len(segments), SAMPLE)
    samples["a_start"] = samples["b_start"] = segments.start
    samples["a_length"] = segments.stop - segments.start
    samples["is_next"] = 1
    return samples


def _sentence_order(
    candidates: CandidateSegments, segments: Segments, rules: SegmentRules
) -> SampleArray:
    # A last token on its own is joined by the one before it, to be split from it.
    alone = (segments.stop - segments.start == 1) & (
        segments.start > candidates.document_bounds[segments.document]
    )
    start = segments.start - alone
    length = segments.stop - start
    # A single sentence has no boundary inside: it is split at any of its tokens.
    within = (
        start
        + 1
        + integers_below(
            key_of("within", *rules.key_parts), segments.first, np.maximum(length - 1, 1)
        )
    )
    split = np.where(
        segments.has_several_sentences,
        candidates.boundaries[_split_boundary(segments, rules)],
        within,
    )
    # A document of one token makes a single segment.
    split = np.minimum(split, segments.stop)
    label = hash64(key_of("label", *rules.key_parts), segments.first) >> np.uint64(63)
    swapped = (label == 1) & (split < segments.stop)

    samples = np.zeros(len(segments), SAMPLE)
    samples["a_start"] = np.where(swapped, split, start)
    samples["b_start"] = np.where(swapped, start, split)
    samples["a_length"] = np.where(swapped, segments.stop - split, split - start)
    samples["b_length"] = length - samples["a_length"]
    samples["is_next"] = ~swapped
    return samples


def _split_boundary(segments: Segments, rules: SegmentRules) -> Int64Array:
    """Return the boundary where A ends: after a drawn number of sentences, never after the last."""
    choices = np.maximum(segments.last - segments.first, 1)
    key = key_of("border", *rules.key_parts)
    return segments.first + 1 + integers_below(key, segments.first, choices)


def _next_sentence(
    candidates: CandidateSegments,
    rules: SegmentRules,
    shard: Shard,
    negatives: Shard,
    documents: BoolArray | None,
) -> SampleArray:
    boundary = _split_boundary(candidates.segments, rules)
    all_true = _balanced_labels(candidates, boundary, rules)
    # What followed the A of a negative pair starts the next segment.
    next_first = np.where(all_true, candidates.next_first, boundary)
    segments = _of_documents(candidates.segments[walk(next_first)], documents)
    is_true = all_true[segments.first]
    split = candidates.boundaries[boundary[segments.first]]
    a_length = split - segments.start

    samples = np.zeros(len(segments), SAMPLE)
    samples["a_start"] = shard.token_base + segments.start
    samples["a_length"] = a_length
    samples["b_start"] = shard.token_base + split
    samples["b_length"] = segments.stop - split
    samples["is_next"] = is_true
    negative = ~is_true
    samples["b_start"][negative], samples["b_length"][negative] = draw_nsp_negatives(
        negatives,
        segments.document[negative] if negatives is shard else np.full(int(negative.sum()), -1),
        _negative_templates(candidates, segments, a_length, rules)[:, negative],
        rules.max_tokens - a_length[negative],
        key_of("partner", *rules.key_parts),
        segments.first[negative],
    )
    return samples


def _balanced_labels(
    candidates: CandidateSegments, boundary: Int64Array, rules: SegmentRules
) -> BoolArray:
    """Return for every boundary whether the segment that starts there is a true pair.

    A segment of a single sentence has no B of its own, so it always gets an NSP negative, and its A
    is short. With an even draw for the others, the length of A would predict the label. So the
    share of true pairs is set, for each class of lengths of A, to what balances the labels in it.
    How many single sentences a walk meets depends on that share; a few walks settle both.
    """
    a_length = candidates.boundaries[boundary] - candidates.segments.start
    classes = _length_classes(a_length)
    draws = uniform(key_of("label", *rules.key_parts), candidates.segments.first)
    several = candidates.segments.has_several_sentences
    share = np.full(_CLASSES, 0.5)
    for _ in range(_BALANCING_WALKS):
        is_true = several & (draws < share[classes])
        started = walk(np.where(is_true, candidates.next_first, boundary))
        total = np.bincount(classes[started], minlength=_CLASSES)
        splittable = np.bincount(classes[started[several[started]]], minlength=_CLASSES)
        share = np.minimum(total / (2 * np.maximum(splittable, 1)), 1.0)
    balanced: BoolArray = several & (draws < share[classes])
    return balanced


def _length_classes(lengths: Int64Array) -> Int64Array:
    """Return classes of lengths, `_CLASSES_PER_OCTAVE` to a doubling, without rounding errors.

    A logarithm that differs in its last bit on another processor would make other samples there.
    """
    mantissa, octave = np.frexp(lengths)  # lengths = mantissa x 2^octave, mantissa from 0.5 to 1
    within = ((mantissa - 0.5) * (2 * _CLASSES_PER_OCTAVE)).astype(np.int64)
    return octave.astype(np.int64) * _CLASSES_PER_OCTAVE + within


def _negative_templates(
    candidates: CandidateSegments, segments: Segments, a_length: Int64Array, rules: SegmentRules
) -> Int64Array:
    """Return the length an NSP negative should have, and 1 if it should end a sentence, [2, N].

    The template is the B that is replaced. A segment of a single sentence has none: its template is
    the B of another segment with about as long an A, so that its length looks like the others'.
    """
    several = segments.has_several_sentences
    templates = np.flatnonzero(several) if several.any() else np.arange(len(segments))
    templates = templates[np.argsort(a_length[templates], kind="stable")]
    near = np.searchsorted(a_length[templates], a_length)
    spread = max(1, len(templates) // 20)
    near += integers_below(key_of("model", *rules.key_parts), segments.first, spread) - spread // 2
    near = np.clip(near, 0, len(templates) - 1)
    template = np.where(several, np.arange(len(segments)), templates[near])
    length = segments.stop[template] - segments.start[template] - a_length
    return np.stack([np.maximum(length, 1), candidates.ends_sentence(segments.stop[template])])
