"""Whether a model predicts masked tokens better than one constant prediction does."""

from pathlib import Path

from data_prep.tokenizers.folder import load_tokenizer
from pretrain.run_facts import RunFacts

_ACCURACY = "validation/accuracy_mlm"


def warn_below_baseline(facts: RunFacts, tokenizer_path: Path) -> str | None:
    """Return a warning where the model is no better than its baseline, or None.

    `train/evaluation.py` defines the baseline. Checkpoints of earlier versions lack it.
    """
    scores = facts.validation
    baseline = scores.get(f"{_ACCURACY}_baseline")
    if baseline is None or scores[_ACCURACY] > baseline:
        return None
    tokenizer = load_tokenizer(tokenizer_path).backend
    token = tokenizer.id_to_token(int(scores["validation/baseline_token"]))
    return (
        f"after {facts.step:,} steps the model predicts masked tokens no better "
        f"({scores[_ACCURACY]:.1%}) than always answering {token!r} ({baseline:.1%}): train "
        "longer, or with another optim.lr, unless no loss of its recipe trains the MLM head."
    )
