"""Models that have nothing for an unknown character are refused before any text is read."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from data_prep.errors import UserError
from data_prep.tokenizers.foreign.unknown_token import check_unknown_token

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (models.WordPiece({"<unk>": 0, "a": 1}, unk_token="[UNK]"), r"WordPiece model, .*UNK"),
        (models.WordLevel({"a": 0}, unk_token="<unk>"), "WordLevel model, '<unk>', is not in"),
        (models.Unigram([("a", -1.0)]), "unk_id is null"),
        (models.BPE({"a": 0}, []), "dropped without a trace"),
        (models.BPE({"a": 0}, [], unk_token="<unk>"), "BPE model, '<unk>', is not in"),
    ],
)
def test_model_without_unknown_is_refused(model: models.Model, message: str) -> None:
    """The sentence names the file and what its model lacks."""
    with pytest.raises(UserError, match=f"some/tokenizer.json: .*{message}"):
        check_unknown_token(Tokenizer(model), Path("some/tokenizer.json"))


@pytest.mark.parametrize(
    "model",
    [
        models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"),
        models.Unigram([("<unk>", 0.0)], unk_id=0),
        models.Unigram([(token, 0.0) for token in BYTES], byte_fallback=True),
        models.BPE({token: index for index, token in enumerate(BYTES)}, [], byte_fallback=True),
        models.BPE({"<unk>": 0}, [], unk_token="<unk>"),
    ],
)
def test_model_with_unknown_is_accepted(model: models.Model) -> None:
    """An unknown token, or a token for every byte, is enough."""
    check_unknown_token(Tokenizer(model), Path("tokenizer.json"))


def test_byte_level_model_needs_all_bytes() -> None:
    """A byte-level model without an unknown token must have a token for every byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    for tokens, accepted in ((alphabet, True), (alphabet[1:], False)):
        tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()]
        )
        if accepted:
            check_unknown_token(tokenizer, Path("tokenizer.json"))
        else:
            with pytest.raises(UserError, match="dropped without a trace"):
                check_unknown_token(tokenizer, Path("tokenizer.json"))
