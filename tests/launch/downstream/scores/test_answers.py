"""Exact match and F1 of answers, as the official scripts compute them."""

import pytest

from launch.downstream.scores.answers import best_f1, exact_match


@pytest.mark.parametrize(
    ("found", "answers", "exact", "f1"),
    [
        ("the Denver Broncos", ["Denver Broncos"], 1, 1),
        ("Denver", ["Denver Broncos", "Broncos of Denver"], 0, 2 / 3),
        ("a U.S. team!", ["us team"], 1, 1),
        ("théâtre", ["theatre"], 0, 0),
        ("cat cat dog", ["cat dog dog"], 0, 2 / 3),
        ("", [], 1, 1),
        ("x", [], 0, 0),
        ("", ["x"], 0, 0),
        ("the", ["a"], 1, 1),
        # Of Chinese, characters are words, and its punctuation is removed.
        ("北京。", ["北京"], 1, 1),
        ("北京市", ["北京"], 0, 4 / 5),
        ("1990年", ["1990 年"], 1, 1),
    ],
)
def test_scores_of_answers(found: str, answers: list[str], exact: float, f1: float) -> None:
    """The best of the right answers counts, after normalisation."""
    assert exact_match(found, answers) == exact
    assert best_f1(found, answers) == pytest.approx(f1)
