"""Batches of texts: every text once and in order, each batch just above the given size."""

from hypothesis import given
from hypothesis import strategies as st

from data_prep.text_batches import batch_by_chars


@given(st.lists(st.text(max_size=9), max_size=30), st.integers(1, 20))
def test_batches_reach_size_in_order(texts: list[str], min_chars: int) -> None:
    """Batches hold all texts in order, and every batch but the last just reaches the size."""
    batches = list(batch_by_chars(iter(texts), min_chars))
    assert [text for batch in batches for text in batch] == texts
    for batch in batches[:-1]:
        assert sum(map(len, batch[:-1])) < min_chars <= sum(map(len, batch))
    assert all(batches)
