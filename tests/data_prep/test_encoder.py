import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from data_prep import encoder as encoder_module
from data_prep.encoder import SentenceEncoder, works_by_chunk
from data_prep.keyed import integers_below, key_of
from data_prep.options import Language
from data_prep.wordpiece import SPECIAL_TOKENS, bert_tokenizer

# Letters, marks, kana, ideographs of every block, controls, spaces, symbols, emoji.
PALETTE = (
    "abcXYZ éÉßİΣσς ,.!?'\"-_()[]# \u0301\u0308\u3099 かが漢字豈\u3400\U00020000\U0002f800 "
    "\u200b\u00ad\x00\x07\x1c\x85\t\u00a0\u3000 °™$€ 🙂👩\u200d👩 0123"
)
UINT16 = np.dtype("<u2")


def vocabulary() -> dict[str, int]:
    pieces = sorted(set(PALETTE.lower()) | set(PALETTE) | set("eisu"))
    tokens = [*SPECIAL_TOKENS, *pieces, *(f"##{piece}" for piece in pieces), "ab", "##bc", "abc"]
    return {token: index for index, token in enumerate(tokens)}


def random_sentences(count: int) -> list[str]:
    drawn = integers_below(key_of("encoder"), range(count * 30), len(PALETTE))
    return ["".join(PALETTE[i] for i in row) for row in drawn.reshape(count, 30)]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_ids_equal_those_of_the_tokenizer_on_random_unicode(
    language: Language, lowercase: bool
) -> None:
    sentences = random_sentences(500)
    reference = bert_tokenizer(vocabulary(), lowercase)
    encoder = SentenceEncoder(bert_tokenizer(vocabulary(), lowercase), UINT16, language)
    for start in range(0, len(sentences), 100):
        batch = sentences[start : start + 100]
        expected = [reference.encode(text, add_special_tokens=False).ids for text in batch]
        assert [ids.tolist() for ids in encoder.encode(batch)] == expected
        assert [ids.tolist() for ids in encoder.encode(batch)] == expected, "the second time"


def test_a_text_that_spells_a_special_token_never_becomes_one() -> None:
    for tokenizer in (bert_tokenizer(vocabulary(), True), plain_tokenizer()):
        for language in ("en", "zh"):
            encoder = SentenceEncoder(tokenizer, UINT16, language)
            ids = encoder.encode(["a [SEP] b [MASK][CLS]"])[0].tolist()
            assert len(ids) > 3 and not {0, 2, 3, 4} & set(ids)


def test_forgetting_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "_MAX_CHUNKS", 5)
    encoder = SentenceEncoder(bert_tokenizer(vocabulary(), True), UINT16, "en")
    first = [ids.tolist() for ids in encoder.encode(["abc ab a", "1 2 3 4 5 6 7"])]
    assert [ids.tolist() for ids in encoder.encode(["abc ab a", "1 2 3 4 5 6 7"])] == first


def test_empty_sentences_give_no_ids() -> None:
    encoder = SentenceEncoder(bert_tokenizer(vocabulary(), True), UINT16, "en")
    assert [len(ids) for ids in encoder.encode(["", "\u200b", "a"])] == [0, 0, 1]
    assert encoder.encode([]) == []


def test_ids_above_uint16_survive() -> None:
    words = {token: index for index, token in enumerate(SPECIAL_TOKENS)} | {"big": 70_000}
    encoder = SentenceEncoder(bert_tokenizer(words, True), np.dtype("<u4"), "en")
    assert [ids.tolist() for ids in encoder.encode(["big big"])] == [[70_000, 70_000]]


def plain_tokenizer() -> Tokenizer:
    """Return a tokenizer whose ids depend on what is around: spaces are part of tokens."""
    tokenizer = Tokenizer(models.WordLevel(vocabulary() | {"▁a": 900, "a": 901}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def test_a_tokenizer_that_looks_across_spaces_is_asked_whole_sentences() -> None:
    tokenizer = plain_tokenizer()
    encoder = SentenceEncoder(tokenizer, UINT16, "en")
    assert not works_by_chunk(tokenizer)
    assert [ids.tolist() for ids in encoder.encode(["a a"])] == [
        tokenizer.encode("a a", add_special_tokens=False).ids
    ]


def test_an_added_word_with_a_space_switches_the_chunks_off() -> None:
    tokenizer = bert_tokenizer(vocabulary(), True)
    assert works_by_chunk(tokenizer)
    tokenizer.add_tokens(["abc xyz"])
    assert not works_by_chunk(tokenizer)
    ids = SentenceEncoder(tokenizer, UINT16, "en").encode(["abc xyz"])[0].tolist()
    assert ids == [tokenizer.token_to_id("abc xyz")]
