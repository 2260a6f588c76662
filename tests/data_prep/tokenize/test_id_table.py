"""The table of texts and ids: look-up and eviction."""

import numpy as np

from data_prep.counter_rng import integers_below, key_of
from data_prep.tokenize.id_table import IdTable

UINT16 = np.dtype("<u2")


def ids_of(text: str) -> list[int]:
    return [ord(letter) for letter in text[1:]]


def look_up(table: IdTable, texts: list[str]) -> tuple[list[list[int]], list[str]]:
    """Return the ids of texts and the new ones, after adding those to the table."""
    rows, new = table.rows(texts)
    ids = [ids_of(text) for text in new]
    table.add(
        len(table) - len(new) + np.arange(len(new)),
        np.array([token for own in ids for token in own], UINT16),
        np.array([len(own) for own in ids], np.int64),
    )
    found, counts = table.gather(rows)
    return [part.tolist() for part in np.split(found, np.cumsum(counts)[:-1])], new


def test_id_table_survives_evictions() -> None:
    """Ids are right after any number of evictions."""
    table = IdTable(UINT16, max_texts=12, max_chars=60, fixed=("", "\n"))
    evictions = 0
    for batch in integers_below(key_of("id table"), range(3000), 40).reshape(-1, 10):
        texts = ["x" + "ab" * (number % 5) + str(number) for number in batch.tolist()]
        evictions += table.evict() is not None
        found, _ = look_up(table, texts)
        assert found == [ids_of(text) for text in texts]
        assert table.rows(["\n", ""])[0].tolist() == [1, 0]
    assert evictions > 100


def test_full_table_keeps_repeated_texts() -> None:
    """A full table keeps the texts that occurred again, and returns their rows."""
    table = IdTable(UINT16, max_texts=6, max_chars=1000, fixed=("",))
    look_up(table, ["one", "two", "three", "four"])
    look_up(table, ["two", "four", "five", "six", "seven"])
    kept = table.evict()
    assert kept is not None and kept.tolist() == [0, 2, 4]
    found, new = look_up(table, ["two", "four", "one", "two"])
    assert new == ["one"]
    assert found == [ids_of(text) for text in ("two", "four", "one", "two")]


def test_long_texts_fill_id_table() -> None:
    """Long texts fill a table too."""
    table = IdTable(UINT16, max_texts=1000, max_chars=100)
    look_up(table, ["a" * 60, "b" * 30])
    assert table.evict() is None
    look_up(table, ["a" * 60, "c" * 30])
    kept = table.evict()
    assert kept is not None and kept.tolist() == [], "at most half of the table is kept"
    assert look_up(table, ["b" * 30])[1] == ["b" * 30]
