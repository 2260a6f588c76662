"""What several sources do, and no key of a recipe changes."""

from dataclasses import replace

from tests.launch.published.setting import Practice

BERT_DATA = "google-research/bert, create_pretraining_data.py"

ATTENTION_DROPOUT = r"dropout on attention probabilities"
PACKED = Practice("rows", "one sample and padding", "packed samples", "", r"pack")
FIXED_MASKS = Practice(
    "masks",
    "some copies with fixed masks",
    "drawn anew in every epoch",
    BERT_DATA,
    r"drawn anew in every epoch",
)
UNCORRECTED = Practice("Adam's bias correction", "none", "yes", "", r"bias correction")
AHEAD = Practice("rate of the first step", "0", "one step of the warm-up", "", r"step ahead")
BERT_MASKS = "uniform, 0.15 (0.8, 0.1 random)"


def attention_dropout(source: str) -> Practice:
    return Practice("dropout of attention", "0.1", "none", source, ATTENTION_DROPOUT)


def by(practice: Practice, source: str) -> Practice:
    return replace(practice, source=source)
