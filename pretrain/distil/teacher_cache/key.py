"""The key of a teacher cache: every fact that decides its soft targets.

The soft targets of a masked token depend on the corpus, on the plan that packed its row, on the
masks and on the teacher. Training on a cache that differs in any of these would be wrong without
an error, so readers refuse it and name the difference. Ranks, micro-batches and steps do not
matter: rows are numbered.
"""

from typing import Any, Literal

from pydantic import Field

from data_prep.config.loader import Options
from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError
from data_prep.manifest import file_sha256, first_difference
from pretrain.config.run import MaskOptions
from pretrain.data.batch_source import BatchSource

FORMAT = "stillhouse-signal-2"


class TeacherCacheOptions(Options):
    """How a distribution over the vocabulary is compressed."""

    kind: Literal["top_k", "sampled"] = Field(
        "sampled",
        description="`sampled` draws tokens by their probability, which is unbiased "
        "(arXiv 2503.16870); `top_k` keeps the most probable ones and the mass of all others",
    )
    count: int = Field(
        16, ge=1, description="vocabulary entries stored or drawn for each masked token"
    )
    power: float = Field(
        1.0,
        gt=0,
        le=1,
        description="sampled: tokens are drawn by probability^this; below 1 rare ones more often",
    )
    number: Literal["float16", "float32"] = Field(
        "float16", description="dtype of the stored probabilities"
    )


def cache_key(
    source: BatchSource, corpus: Corpus, teacher_sha256: str, temperature: float
) -> dict[str, Any]:
    """Return the facts that a cache and its readers must agree on, as JSON.

    Args:
        source: of rows and masks, from `corpus`.
        corpus: one split.
        teacher_sha256: of the teacher's weights.
        temperature: that divided its logits.

    Raises:
        UserError: for a masking rate that changes from step to step.
    """
    spec = source.spec
    if spec.mask.rate_end is not None:
        raise UserError(
            f"mask.rate_end {spec.mask.rate_end} changes the masks from step to step, so soft "
            "targets cannot be cached by row: remove it, or leave teacher.cache out."
        )
    return {
        "format": FORMAT,
        "corpus": corpus.fingerprint,
        "split": corpus.split,
        "weights": {shard.counts.corpus: shard.weight for shard in corpus.shards},
        "vocab_size": corpus.vocab_size,
        "seed": spec.seed,
        "row_tokens": spec.row_tokens,
        "samples": spec.samples.model_dump(mode="json"),
        "mask": _mask_facts(spec.mask),
        "teacher": teacher_sha256,
        "temperature": temperature,
    }


def describe_difference(found: Any, expected: Any) -> str | None:
    """Return the first fact that differs, with both values, or None.

    Args:
        found: facts of the cache.
        expected: facts of the recipe.
    """
    difference = first_difference(expected, found)
    if difference is None:
        return None
    key, here, there = difference
    return f"{key} is {there!r} there and {here!r} here"


def _mask_facts(mask: MaskOptions) -> dict[str, Any]:
    """Return the masking options, with the hash of the token file instead of its path."""
    facts = mask.model_dump(mode="json")
    if mask.allowed_tokens is not None:
        facts["allowed_tokens"] = file_sha256(mask.allowed_tokens)
    return facts
