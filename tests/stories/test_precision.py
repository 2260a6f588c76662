"""A run in bf16 against the same run in fp32; DeepSpeed has no fp16 on a CPU."""

from pathlib import Path
from statistics import mean

import pytest

from data_prep.config.schema import CorpusRecipe
from data_prep.pipeline.build import build_corpus
from tests.stories.conftest import ROOT, Command, curve

pytestmark = pytest.mark.story
TEACHER = "launch/train_teacher.py"
STEPS = 40
# bf16 has 8 bits, so a step's loss differs by about 2^-9 of itself at first, and paths drift apart.
# The mean of the last quarter evens that out; a wrong scale or a lost master weight costs far more
# than 0.5 %, which is a tenth of the fall of the loss here.
TOLERANCE = 0.005


@pytest.fixture
def novel(tmp_path: Path) -> list[str]:
    """Return the overrides of a corpus of real text, on which the loss can fall."""
    tree = {
        "input": {
            "path": ROOT / "data_prep/sample_corpus/novels/carroll_alice",
            "documents": "file",
        },
        "tokenizer": {"path": tmp_path / "tokenizer", "vocab_size": 500, "alphabet": 100},
        "corpus": {"path": tmp_path / "corpus", "validation_share": 0.2},
        "workers": 1,
    }
    recipe = CorpusRecipe.model_validate(tree)
    build_corpus(recipe)
    return [f"corpus.path={recipe.corpus.path}", f"tokenizer.path={recipe.tokenizer.path}"]


def test_bf16_reaches_fp32_loss(
    deepspeed: Command, teacher_recipe: Path, novel: list[str], tmp_path: Path
) -> None:
    """A run in bf16 reaches the loss of the same run in fp32."""
    ends = {}
    for precision in ("fp32", "bf16"):
        arguments = [
            *novel,
            f"train.precision={precision}",
            f"deepspeed.config=ds_configs/zero1_{precision}.json",
            f"run.path={tmp_path / precision}",
            f"train.steps={STEPS}",
            "optim.lr=5e-3",
            "validation.every_steps=40",
            "checkpoint.every_steps=40",
        ]
        deepspeed(TEACHER, "--config", teacher_recipe, *arguments, ranks=1)
        losses = [figures[1] for _, figures in sorted(curve(tmp_path / precision).items())]
        assert mean(losses[-10:]) < 0.9 * mean(losses[:3]), "the loss fell too little to compare"
        ends[precision] = mean(losses[-10:])
    assert ends["bf16"] == pytest.approx(ends["fp32"], rel=TOLERANCE)
