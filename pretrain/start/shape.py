"""The shape of a model that continues from a start: the start's, but for what a recipe may change.

A recipe's keys are compared with the start's, because a model of another shape has no weights to
continue from.
"""

import dataclasses

from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer
from pretrain.config.model import ModelOptions
from pretrain.config.run import TeacherRecipe
from pretrain.model import BertShape

# Keys of `model` that must be those of the start where they are given.
_FIXED = ("layers", "width", "heads", "feed_forward", "norm")


def continued_shape(
    recipe: TeacherRecipe, start: BertShape, tokenizer: LoadedTokenizer, *, transfers: bool
) -> BertShape:
    """Return the shape of the model.

    Args:
        recipe: of the run.
        start: shape of the start.
        tokenizer: of the corpus.
        transfers: whether the model gets the vocabulary of that tokenizer; otherwise it keeps the
            start's, which may be padded.

    Raises:
        UserError: for a key that contradicts the start, rows longer than the positions, or pairs
            for a start without segment embeddings.
    """
    options = recipe.model
    _check_keys(options, start)
    has_pairs = recipe.samples.pairs != "none"
    if has_pairs and not start.token_types:
        raise UserError(
            f"model.start {options.start} has no segment embeddings, which sentence pairs need: "
            "set samples.pairs=none."
        )
    positions = options.positions or start.positions
    if recipe.train.longest_row > positions:
        raise UserError(
            f"train.row_tokens {recipe.train.longest_row} exceeds the {positions} positions of "
            f"model.start {options.start}: shorten the rows, or set model.positions="
            f"{recipe.train.longest_row} to interpolate them."
        )
    return dataclasses.replace(
        start,
        vocab_size=tokenizer.vocab_size if transfers else start.vocab_size,
        positions=positions,
        dropout=start.dropout if options.dropout is None else options.dropout,
        pad_id=tokenizer.pad_id,
        next_sentence=has_pairs,
        # Without an NSP head a trained pooler is published as it is, for classifiers.
        pooler=start.has_pooler and not has_pairs,
    )


def _check_keys(options: ModelOptions, start: BertShape) -> None:
    for key in _FIXED:
        given, found = getattr(options, key), getattr(start, key)
        if given is not None and given != found:
            raise UserError(
                f"model.{key} is {given}, but model.start {options.start} has {found}: leave out "
                "the keys of its shape, or name another start."
            )
