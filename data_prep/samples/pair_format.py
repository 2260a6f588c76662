"""The special tokens around a pair of texts: those of rows, and those that a model expects."""

from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer

_OF_ROWS = 3  # [CLS] A [SEP] B [SEP], see `samples/sentence_pairs.py`


def check_pair_format(tokenizer: LoadedTokenizer, remedy: str) -> None:
    """Refuse pairs of texts for a trained model whose tokenizer puts other tokens around them.

    RoBERTa and its descendants put two separators between them. A tokenizer that states no special
    tokens at all is accepted.

    Args:
        tokenizer: of the model.
        remedy: what turns pairs off.

    Raises:
        UserError: for any other number of special tokens than that of rows.
    """
    count = tokenizer.backend.num_special_tokens_to_add(True)
    if count not in (0, _OF_ROWS):
        raise UserError(
            f"The tokenizer {tokenizer.path} puts {count} special tokens around a pair of texts, "
            f"as RoBERTa's does, but rows have {_OF_ROWS}, as BERT's: {remedy}, so that each "
            "sample is one text."
        )
