"""The encoder: ids and sentences equal to those of the tokenizer."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from data_prep.config.schema import Language
from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import integers_below, key_of
from data_prep.tokenize import encoder as encoder_module
from data_prep.tokenize import pretoken_cache as pretoken_cache_module
from data_prep.tokenize import pretoken_tokenizer as pretoken_tokenizer_module
from data_prep.tokenize.encoder import EncodedTexts, TextEncoder
from data_prep.tokenize.id_table import IdArray
from data_prep.tokenize.pretoken_cache import PretokenCache
from data_prep.tokenize.pretoken_tokenizer import PretokenTokenizer, is_bert_pipeline
from data_prep.tokenize.sentence_flags import RULES, sentence_flags_of
from data_prep.tokenize.sentence_rules import split_sentences
from data_prep.tokenizers.sentencepiece import to_fast_tokenizer, train_sentencepiece
from data_prep.tokenizers.wordpiece import SPECIAL_TOKENS, bert_tokenizer

# Letters, marks, kana, ideographs of every block, controls, spaces, symbols, emoji.
PALETTE = (
    "abcXYZ éÉßİΣσς ,.!?'\"-_()[]# \u0301\u0308\u3099 かが漢字豈\u3400\U00020000\U0002f800 "
    "\u200b\u00ad\x00\x07\x1c\x85\t\u00a0\u3000 °™$€ 🙂👩\u200d👩 0123 。！？…」 שלום ‏\n"
)
UINT16 = np.dtype("<u2")
SAMPLE = Path(__file__).parents[3] / "data_prep/sample_corpus/novels/carroll_alice/chapter_01.txt"
Nested = list[list[list[int]]]


def vocabulary() -> dict[str, int]:
    pieces = sorted(set(PALETTE.lower()) | set(PALETTE) | set("eisu"))
    tokens = [*SPECIAL_TOKENS, *pieces, *(f"##{piece}" for piece in pieces), "ab", "##bc", "abc"]
    return {token: index for index, token in enumerate(tokens)}


def random_texts(count: int, length: int = 60) -> list[str]:
    drawn = integers_below(key_of("encoder"), range(count * length), len(PALETTE))
    return ["".join(PALETTE[i] for i in row) for row in drawn.reshape(count, length)]


def nested(encoded: EncodedTexts) -> Nested:
    """Return the ids of every sentence of every document."""
    bounds, documents = encoded.sentences.tolist(), encoded.documents.tolist()
    ids = [encoded.tokens[a:b].tolist() for a, b in itertools.pairwise(bounds)]
    return [ids[a:b] for a, b in itertools.pairwise(documents)]


def encode_by_sentence(tokenizer: Tokenizer, texts: list[str], language: Language) -> Nested:
    """Return the ids of every sentence from the tokenizer itself, without empty ones."""
    tokenizer.encode_special_tokens = True
    return [
        [
            ids
            for sentence in split_sentences(text, language)
            if (ids := tokenizer.encode(sentence, add_special_tokens=False).ids)
        ]
        for text in texts
    ]


def flat(documents: Nested) -> list[list[int]]:
    return [[token for sentence in document for token in sentence] for document in documents]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_encoder_matches_tokenizer_on_unicode(language: Language, lowercase: bool) -> None:
    """Ids equal those of the tokenizer on random Unicode."""
    texts = random_texts(300)
    reference = encode_by_sentence(bert_tokenizer(vocabulary(), lowercase), texts, language)
    encoder = TextEncoder(bert_tokenizer(vocabulary(), lowercase), UINT16, language)
    for start in range(0, len(texts), 100):
        batch, expected = texts[start : start + 100], reference[start : start + 100]
        assert flat(nested(encoder.encode(batch))) == flat(expected)
        assert flat(nested(encoder.encode(batch))) == flat(expected), "the second time"


@pytest.mark.parametrize("language", ["en", "zh"])
@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.text(max_size=60), max_size=4))
def test_encoder_matches_tokenizer_by_sentence(language: Language, texts: list[str]) -> None:
    """Ids and sentences equal those of the tokenizer on any cleaned text."""
    texts = ["\n".join(" ".join(line.split()) for line in text.split("\n")) for text in texts]
    encoder = TextEncoder(bert_tokenizer(vocabulary(), True), UINT16, language)
    reference = encode_by_sentence(bert_tokenizer(vocabulary(), True), texts, language)
    assert nested(encoder.encode(texts)) == reference


def test_spelled_special_token_stays_text() -> None:
    """A text that spells a special token never becomes one."""
    for tokenizer in (bert_tokenizer(vocabulary(), True), plain_tokenizer()):
        for language in ("en", "zh"):
            encoded = TextEncoder(tokenizer, UINT16, language).encode(["a [SEP] b [MASK][CLS]"])
            ids = encoded.tokens.tolist()
            assert len(ids) > 3 and not {0, 2, 3, 4} & set(ids)


def test_cache_eviction_keeps_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eviction from the pre-token cache does not change the result."""
    texts = random_texts(40)
    expected = nested(TextEncoder(bert_tokenizer(vocabulary(), True), UINT16, "en").encode(texts))
    monkeypatch.setattr(pretoken_cache_module, "_MAX_PRETOKENS", 5)
    monkeypatch.setattr(encoder_module, "_GROUP_CHARS", 50)
    encoder = TextEncoder(bert_tokenizer(vocabulary(), True), UINT16, "en")
    assert nested(encoder.encode(texts)) == expected


def test_full_cache_keeps_repeated_pretokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full pre-token cache keeps the pre-tokens that occurred again."""
    monkeypatch.setattr(pretoken_cache_module, "_MAX_PRETOKENS", 20)
    tokenized: list[str] = []

    class Spy(PretokenTokenizer):
        def ids(self, pretokens: Sequence[str]) -> tuple[IdArray, Int64Array]:
            tokenized.extend(pretokens)
            return super().ids(pretokens)

    tokenizer = bert_tokenizer(vocabulary(), True)
    cache = PretokenCache(Spy(tokenizer, UINT16), RULES["en"], UINT16)
    for number in range(200):
        pretokens = ["abc", f"a{number}", "ab.", f"b{number}", "A"]
        rows = cache.rows(pretokens)
        ids = [cache.ids(rows[n : n + 1])[0].tolist() for n in range(len(rows))]
        reference = [tokenizer.encode(c, add_special_tokens=False).ids for c in pretokens]
        assert ids == reference
        assert [(cache.end[r], cache.begin[r]) for r in rows] == [
            sentence_flags_of(each, RULES["en"]) for each in pretokens
        ]
    assert [tokenized.count(each) for each in ("abc", "ab.", "A")] == [1, 1, 1]
    assert tokenized.count("a0") == 1 and len(set(tokenized)) == 403


@pytest.mark.parametrize("kept", [1, 3, 1000])
def test_evicted_parts_are_tokenized_again(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Evicted parts of pre-tokens are tokenized again."""
    monkeypatch.setattr(pretoken_tokenizer_module, "_MAX_PARTS", kept)
    tokenizer = bert_tokenizer(vocabulary(), True)
    pretoken_tokenizer = PretokenTokenizer(tokenizer, UINT16)
    for text in random_texts(60):
        pretokens = [each for each in text.replace("\n", " ").split(" ") if each]
        reference = [tokenizer.encode(c, add_special_tokens=False).ids for c in pretokens]
        ids, counts = pretoken_tokenizer.ids(pretokens)
        found = np.split(ids, np.cumsum(counts)[:-1])
        assert [part.tolist() for part in found] == reference


@pytest.mark.parametrize("limit", [1, 7, 30, 1000])
def test_long_texts_encode_in_pieces(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Long texts are encoded in pieces with the same result."""
    texts = ["abc ab. A b\n\nabc\n" * 9, "", "\n", "a. B " * 20, "abc\nabc"]
    tokenizer = bert_tokenizer(vocabulary(), True)
    whole = TextEncoder(tokenizer, UINT16, "en").encode(texts)
    monkeypatch.setattr(encoder_module, "_GROUP_CHARS", limit)
    pieces = TextEncoder(tokenizer, UINT16, "en").encode(texts)
    assert nested(pieces) == nested(whole) == encode_by_sentence(tokenizer, texts, "en")
    assert pieces.paragraphs.tolist() == whole.paragraphs.tolist()


@pytest.mark.parametrize("splitter", [None, lambda paragraph: split_sentences(paragraph, "en")])
def test_paragraphs_count_their_sentences(splitter: object) -> None:
    """Every paragraph has its sentences, and empty ones have none."""
    encoder = TextEncoder(bert_tokenizer(vocabulary(), True), UINT16, "en", splitter)  # type: ignore[arg-type]
    encoded = encoder.encode(["ab. B\n\u200b\nab", "", "c\n"])
    assert np.diff(encoded.paragraphs).tolist() == [2, 0, 1, 0, 1, 0]
    assert np.diff(encoded.documents).tolist() == [3, 0, 1]
    assert np.diff(encoder.encode([]).documents).tolist() == []


def test_user_splitter_ends_sentences() -> None:
    """The user's splitter decides where sentences end."""
    encoder = TextEncoder(bert_tokenizer(vocabulary(), True), UINT16, "en", lambda p: p.split("-"))
    (document,) = nested(encoder.encode(["a. A-b c\nab"]))
    assert [len(sentence) for sentence in document] == [3, 2, 1]


def test_encoder_keeps_large_ids() -> None:
    """Ids above 65,535 are kept."""
    words = {token: index for index, token in enumerate(SPECIAL_TOKENS)} | {"big": 70_000}
    encoder = TextEncoder(bert_tokenizer(words, True), np.dtype("<u4"), "en")
    assert encoder.encode(["big big"]).tokens.tolist() == [70_000, 70_000]


def plain_tokenizer() -> Tokenizer:
    """Return a tokenizer whose ids depend on the context: spaces are part of tokens."""
    tokenizer = Tokenizer(models.WordLevel(vocabulary() | {"▁a": 900, "a": 901}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def test_context_tokenizer_encodes_by_sentence() -> None:
    """A tokenizer whose ids depend on the context encodes whole sentences."""
    tokenizer = plain_tokenizer()
    assert not is_bert_pipeline(tokenizer)
    texts = ["a a. A a", "a\na"]
    assert nested(TextEncoder(tokenizer, UINT16, "en").encode(texts)) == encode_by_sentence(
        tokenizer, texts, "en"
    )


def test_added_token_with_space_disables_cache() -> None:
    """An added token with a space disables the pre-token cache."""
    tokenizer = bert_tokenizer(vocabulary(), True)
    assert is_bert_pipeline(tokenizer)
    tokenizer.add_tokens(["abc xyz"])
    assert not is_bert_pipeline(tokenizer)
    ids = TextEncoder(tokenizer, UINT16, "en").encode(["abc xyz"]).tokens.tolist()
    assert ids == [tokenizer.token_to_id("abc xyz")]


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def sentencepiece_tokenizer(request: pytest.FixtureRequest) -> str:
    """Return a small SentencePiece tokenizer as JSON, so that every test opens its own."""
    lines = SAMPLE.read_text("utf-8").split("\n")
    model = train_sentencepiece(
        lambda: lines, kind=request.param, vocab_size=300, lowercase=True, alphabet=200
    )
    return to_fast_tokenizer(model).to_str()


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.text(max_size=60), max_size=4))
def test_encoder_matches_sentencepiece(sentencepiece_tokenizer: str, texts: list[str]) -> None:
    """SentencePiece ids equal those of the tokenizer on any cleaned text."""
    texts = ["\n".join(" ".join(line.split()) for line in text.split("\n")) for text in texts]
    encoder = TextEncoder(Tokenizer.from_str(sentencepiece_tokenizer), UINT16, "en")
    assert encoder._cache is not None
    reference = encode_by_sentence(Tokenizer.from_str(sentencepiece_tokenizer), texts, "en")
    assert nested(encoder.encode(texts)) == reference


@pytest.mark.parametrize("mark", ["\u0345", "\u0e33", "\u200c", "\uff9e"])
def test_graphemes_across_spaces_encode_by_sentence(
    sentencepiece_tokenizer: str, mark: str
) -> None:
    """A text with graphemes across a space is encoded by sentence."""
    texts = ["the cat ab.", f"the {mark}cat. A dog", "a dog"]
    encoder = TextEncoder(Tokenizer.from_str(sentencepiece_tokenizer), UINT16, "en")
    reference = encode_by_sentence(Tokenizer.from_str(sentencepiece_tokenizer), texts, "en")
    assert nested(encoder.encode(texts)) == reference
