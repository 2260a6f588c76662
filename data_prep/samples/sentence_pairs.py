"""Pairs: turn the documents of a shard into training samples.

`next_sentence` (BERT, arXiv 1810.04805, 3.1): `[CLS] A [SEP] B [SEP]`. A chunk is parted into A
and B at a sentence border. In half of the samples B is what follows A; in the other half B is a
stretch of another document, and what followed A opens the next chunk.

`sentence_order` (ALBERT, arXiv 1909.11942, 3.1): A and B always follow one another in the text;
in half of the samples they are swapped.

`none` (RoBERTa, arXiv 1907.11692, 4.2): `[CLS] A [SEP]`, one stretch of one document.

Every text is visited once in each, apart from the beginning of a sentence that a full row cut.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array, Shard
from data_prep.counter_rng import hash64, integers_below, key_of, uniform
from data_prep.samples.nsp_negatives import draw_nsp_negatives
from data_prep.samples.segments import BoolArray, Chunks, Cuts, SegmentRules, follow

Pairs = Literal["next_sentence", "sentence_order", "none"]

SPECIALS_PER_PAIR = 3  # [CLS] A [SEP] B [SEP]
SPECIALS_ALONE = 2  # [CLS] A [SEP]
SAMPLE = np.dtype(
    [
        ("a_start", "<i8"),
        ("b_start", "<i8"),
        ("a_length", "<u2"),
        ("b_length", "<u2"),  # 0 in a sample of a single segment
        ("is_next", "<u2"),  # 0 where B comes from elsewhere, or where the two are swapped
    ]
)
SampleArray = npt.NDArray[np.void]

# Labels are balanced within classes of A's length, four to an octave.
_CLASSES_PER_OCTAVE = 4
_CLASSES = 17 * _CLASSES_PER_OCTAVE
_BALANCING_WALKS = 3


def make_samples(
    shard: Shard,
    partner: Shard,
    row_tokens: int,
    seed: int,
    epoch: int,
    *,
    pairs: Pairs = "next_sentence",
    short_share: float = 0.0,
    visit: int = 0,
    documents: BoolArray | None = None,
) -> SampleArray:
    """Return the samples of one shard in document order.

    Args:
        shard: whose documents are cut.
        partner: where the B of an unrelated pair comes from; `shard` itself when it has
            several documents.
        row_tokens: longest sample, its special tokens included.
        seed, epoch, visit: key every choice, together with the shard's name.
        pairs: what a sample is.
        short_share: share of the chunks that aim at a shorter length.
        documents: marks the documents to visit, [documents of the shard]; None takes all.
    """
    budget = row_tokens - (SPECIALS_ALONE if pairs == "none" else SPECIALS_PER_PAIR)
    rules = SegmentRules(
        budget=budget,
        piece=budget if pairs == "none" else budget // 2,  # a full pair can always be parted
        short_share=short_share,
        place=(seed, epoch, visit, shard.counts.name),
    )
    cuts = Cuts(shard, rules)
    if pairs == "next_sentence":
        return _next_sentence(cuts, rules, shard, partner, documents)
    chunks = _visited(cuts.all[follow(cuts.next_first)], documents)
    samples = _single(chunks) if pairs == "none" else _sentence_order(cuts, chunks, rules)
    for field in ("a_start", "b_start"):
        samples[field] += shard.token_base
    return samples


def sample_tokens(samples: SampleArray) -> Int64Array:
    """Return the length of each sample, its special tokens included."""
    b_length = samples["b_length"].astype(np.int64)
    specials = np.where(b_length > 0, SPECIALS_PER_PAIR, SPECIALS_ALONE)
    return samples["a_length"] + b_length + specials


def _visited(chunks: Chunks, documents: BoolArray | None) -> Chunks:
    return chunks if documents is None else chunks[documents[chunks.document]]


def _single(chunks: Chunks) -> SampleArray:
    samples = np.zeros(len(chunks), SAMPLE)
    samples["a_start"] = samples["b_start"] = chunks.start
    samples["a_length"] = chunks.stop - chunks.start
    samples["is_next"] = 1
    return samples


def _sentence_order(cuts: Cuts, chunks: Chunks, rules: SegmentRules) -> SampleArray:
    # A last token that stands alone takes the one before it along, to be parted from it.
    alone = (chunks.stop - chunks.start == 1) & (
        chunks.start > cuts.document_bounds[chunks.document]
    )
    start = chunks.start - alone
    length = chunks.stop - start
    # A single sentence has no border of its own: it is parted at any of its tokens.
    within = (
        start
        + 1
        + integers_below(key_of("within", *rules.place), chunks.first, np.maximum(length - 1, 1))
    )
    meeting = np.where(chunks.several, cuts.borders[_meeting_border(chunks, rules)], within)
    # A document of one token makes a single segment.
    meeting = np.minimum(meeting, chunks.stop)
    label = hash64(key_of("label", *rules.place), chunks.first) >> np.uint64(63)
    swapped = (label == 1) & (meeting < chunks.stop)

    samples = np.zeros(len(chunks), SAMPLE)
    samples["a_start"] = np.where(swapped, meeting, start)
    samples["b_start"] = np.where(swapped, start, meeting)
    samples["a_length"] = np.where(swapped, chunks.stop - meeting, meeting - start)
    samples["b_length"] = length - samples["a_length"]
    samples["is_next"] = ~swapped
    return samples


def _meeting_border(chunks: Chunks, rules: SegmentRules) -> Int64Array:
    """Return the border where A ends: after a keyed number of sentences, the last one excepted."""
    several = np.maximum(chunks.last - chunks.first, 1)
    return chunks.first + 1 + integers_below(key_of("border", *rules.place), chunks.first, several)


def _next_sentence(
    cuts: Cuts, rules: SegmentRules, shard: Shard, partner: Shard, documents: BoolArray | None
) -> SampleArray:
    border = _meeting_border(cuts.all, rules)
    all_related = _walk_balanced(cuts, border, rules)
    # What followed the A of an unrelated pair opens the next chunk.
    next_first = np.where(all_related, cuts.next_first, border)
    chunks = _visited(cuts.all[follow(next_first)], documents)
    related = all_related[chunks.first]
    meeting = cuts.borders[border[chunks.first]]
    a_length = meeting - chunks.start

    samples = np.zeros(len(chunks), SAMPLE)
    samples["a_start"] = shard.token_base + chunks.start
    samples["a_length"] = a_length
    samples["b_start"] = shard.token_base + meeting
    samples["b_length"] = chunks.stop - meeting
    samples["is_next"] = related
    foreign = ~related
    samples["b_start"][foreign], samples["b_length"][foreign] = draw_nsp_negatives(
        partner,
        chunks.document[foreign] if partner is shard else np.full(int(foreign.sum()), -1),
        _models(cuts, chunks, a_length, rules)[:, foreign],
        rules.budget - a_length[foreign],
        key_of("partner", *rules.place),
        chunks.first[foreign],
    )
    return samples


def _walk_balanced(cuts: Cuts, border: Int64Array, rules: SegmentRules) -> BoolArray:
    """Return for every border whether the chunk that starts there is a true pair.

    A chunk of a single sentence has no B of its own, so it is always an unrelated pair, and its A
    is short. Were the others drawn evenly, the length of A would tell the label. So the share of
    true pairs is set, for each class of lengths of A, to what makes the labels even in it. How
    many single sentences a walk meets depends on that share; a few walks settle both.
    """
    a_length = cuts.borders[border] - cuts.all.start
    classes = _length_classes(a_length)
    draws = uniform(key_of("label", *rules.place), cuts.all.first)
    several = cuts.all.several
    share = np.full(_CLASSES, 0.5)
    for _ in range(_BALANCING_WALKS):
        related = several & (draws < share[classes])
        opened = follow(np.where(related, cuts.next_first, border))
        met = np.bincount(classes[opened], minlength=_CLASSES)
        parted = np.bincount(classes[opened[several[opened]]], minlength=_CLASSES)
        share = np.minimum(met / (2 * np.maximum(parted, 1)), 1.0)
    balanced: BoolArray = several & (draws < share[classes])
    return balanced


def _length_classes(lengths: Int64Array) -> Int64Array:
    """Return classes of lengths, `_CLASSES_PER_OCTAVE` to a doubling, without rounding errors.

    A logarithm that differs in its last bit on another processor would make another plan there.
    """
    mantissa, octave = np.frexp(lengths)  # lengths = mantissa x 2^octave, mantissa from 0.5 to 1
    within = ((mantissa - 0.5) * (2 * _CLASSES_PER_OCTAVE)).astype(np.int64)
    return octave.astype(np.int64) * _CLASSES_PER_OCTAVE + within


def _models(cuts: Cuts, chunks: Chunks, a_length: Int64Array, rules: SegmentRules) -> Int64Array:
    """Return what a B from elsewhere should look like: its length, and 1 if it ends a sentence.

    It takes after the B that it replaces. A chunk of a single sentence has none: it takes after
    another chunk with about as long an A, so that its length looks like those of the others.
    """
    several = chunks.several
    models = np.flatnonzero(several) if several.any() else np.arange(len(chunks))
    models = models[np.argsort(a_length[models], kind="stable")]
    near = np.searchsorted(a_length[models], a_length)
    spread = max(1, len(models) // 20)
    near += integers_below(key_of("model", *rules.place), chunks.first, spread) - spread // 2
    model = np.where(several, np.arange(len(chunks)), models[np.clip(near, 0, len(models) - 1)])
    length = chunks.stop[model] - chunks.start[model] - a_length
    return np.stack([np.maximum(length, 1), cuts.ends_sentence(chunks.stop[model])])
