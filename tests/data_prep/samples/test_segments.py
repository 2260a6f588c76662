"""Segments: every token of the text is used, and only a cut sentence is repeated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.samples.segments import CandidateSegments, SegmentRules, walk
from data_prep.samples.sentence_pairs import Pairs, SampleArray, make_samples
from tests.synthetic_corpora import draw_shards
from tests.synthetic_shards import PositionIndex, segment_range, synthetic_shard, total_lengths

MODES: tuple[Pairs, ...] = ("next_sentence", "sentence_order", "none")
Documents = list[list[int]]

documents_of_any_shape = st.lists(
    st.lists(st.integers(1, 90), min_size=1, max_size=12), min_size=2, max_size=8
)


def own_ranges(samples: SampleArray, pairs: Pairs) -> list[range]:
    """Return the token range of its own document that each sample holds, in document order."""
    ranges = []
    for sample in samples:
        a, b = segment_range(sample, "a"), segment_range(sample, "b")
        if len(b) and (pairs == "sentence_order" or sample["is_next"]):
            assert a.stop == b.start or b.stop == a.start, "A and B meet"
            a = range(min(a.start, b.start), max(a.stop, b.stop))
        ranges.append(a)
    return ranges


def check_coverage(documents: Documents, pairs: Pairs, row: int, short_share: float) -> None:
    shard, index = synthetic_shard(documents), PositionIndex([documents])
    samples = make_samples(shard, shard, row, 1, 0, pairs=pairs, short_share=short_share)
    specials = 2 if pairs == "none" else 3
    expected = before = 0
    for held in own_ranges(samples, pairs):
        index.document_of_range(held.start, len(held))
        back = expected - held.start
        assert back >= 0, "nothing is skipped"
        alone = pairs == "sentence_order" and back == 1 and len(held) == 2
        if back and not alone:
            assert before == row - specials, "only the sentence that a full row cut begins again"
            longest = row - specials if pairs == "none" else (row - specials) // 2
            assert back <= longest and held.start not in index.documents
        expected, before = held.stop, len(held)
    assert expected == index.documents[-1], "nothing is left at the end"
    assert total_lengths(samples).max() <= row and samples["a_length"].min() > 0
    assert (samples["b_length"] > 0).all() or pairs != "next_sentence"


@pytest.mark.parametrize("pairs", MODES)
@settings(max_examples=60, deadline=None)
@given(
    documents=documents_of_any_shape,
    row=st.integers(16, 70),
    short_share=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_segments_cover_text_once(
    pairs: Pairs, documents: Documents, row: int, short_share: float
) -> None:
    """Segments cover every text once, apart from cut sentences."""
    check_coverage(documents, pairs, row, short_share)


@pytest.mark.parametrize("pairs", MODES)
@pytest.mark.parametrize(
    "documents",
    [
        pytest.param(draw_shards("chunks", (60,))[0], id="text"),
        pytest.param([[10_000], [3], [1000, 1000, 1], [61, 61], [30, 31, 30, 31]], id="long"),
        pytest.param([[1], [1, 1], [2], [60], [61], [62], [63, 1], [125, 1], [1]], id="edges"),
    ],
)
def test_segments_cover_edge_lengths(pairs: Pairs, documents: Documents) -> None:
    """Segments cover texts of edge-case lengths too."""
    for short_share in (0.0, 0.5):
        check_coverage(documents, pairs, 128, short_share)


def test_walk_follows_links() -> None:
    """A walk starts a segment wherever the previous one links to."""
    assert walk(np.array([2, 0, 3, 5, 9])).tolist() == [0, 2, 3]


def segment_lengths(short_share: float, key: str = "one") -> np.ndarray:
    shard = synthetic_shard([[5] * 40_000])
    rules = SegmentRules(
        max_tokens=125, max_sentence_tokens=62, short_share=short_share, key_parts=(key,)
    )
    candidates = CandidateSegments(shard, rules)
    segments = candidates.segments[walk(candidates.next_first)]
    return segments.stop - segments.start


def test_short_targets_are_uniform() -> None:
    """A share of the segments has a target length drawn uniformly."""
    assert set(segment_lengths(0.0).tolist()) == {125}
    lengths = segment_lengths(0.25)
    count = len(lengths)
    # A target of 121 to 125 reaches the full length too: 5 of 124 targets.
    expected = 0.25 * count * 119 / 124
    short = lengths[lengths < 125]
    assert abs(len(short) - expected) < 5 * expected**0.5
    # A target is rounded up to the end of a sentence of 5: 2 to 5 to 5, 6 to 10 to 10, ...
    expected_mean = 5 * np.ceil(np.arange(2, 121) / 5).mean()
    assert abs(short.mean() - expected_mean) < 5 * short.std() / len(short) ** 0.5
    assert not np.array_equal(segment_lengths(0.25, "other")[:50], lengths[:50])


def test_all_segments_may_be_short() -> None:
    """With a share of 1 all segments have shorter targets."""
    lengths = segment_lengths(1.0)
    assert np.bincount(lengths, minlength=126)[5::5].min() > 0 and lengths.mean() < 75
