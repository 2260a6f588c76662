"""The model card names the objectives of the run."""

from dataclasses import replace
from pathlib import Path

import pytest

from pretrain.export.model_card import write_card
from pretrain.model import Bert, BertShape
from tests.run_folders import facts_of


@pytest.mark.parametrize(
    ("pairs", "learned", "score"),
    [
        ("next_sentence", "masked tokens and next sentences.", "next-sentence accuracy | 75.00%"),
        (
            "sentence_order",
            "masked tokens and the order of sentences.",
            "sentence-order accuracy | 75.00%",
        ),
        ("none", "pre-trained on masked tokens.", None),
    ],
)
def test_card_names_objectives(
    tiny_shape: BertShape, tmp_path: Path, pairs: str, learned: str, score: str | None
) -> None:
    """The card names what the model was pre-trained on, by the kind of samples."""
    facts = facts_of(Bert(tiny_shape), "teacher", "t" * 16)
    scores = {**facts.validation, **({"validation/accuracy_nsp": 0.75} if score else {})}
    identity = {**facts.identity, "samples.pairs": pairs}
    card = write_card(
        replace(facts, identity=identity, validation=scores), "a-model", "apache-2.0", "en"
    )
    assert learned in card
    assert score in card if score else "sentence" not in card.split("recipe")[0]
