"""Ids of texts are those of the tokenizer itself, and sentences those of the rules."""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import integers_below, key_of
from data_prep.errors import UserError
from data_prep.tokenize.backends import IdArray
from data_prep.tokenize.encoder import EncodedTexts, TextEncoder
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


def encode_by_sentence(tokenizer: Tokenizer, texts: list[str], language: str) -> Nested:
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
def test_ids_match_tokenizer_on_random_unicode(language: str, lowercase: bool) -> None:
    """Ids of hostile characters are those that the tokenizer itself gives."""
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
def test_ids_match_tokenizer_on_any_text(language: str, texts: list[str]) -> None:
    """Ids and sentences of any cleaned text are those of rules and tokenizer."""
    texts = ["\n".join(" ".join(line.split()) for line in text.split("\n")) for text in texts]
    encoder = TextEncoder(bert_tokenizer(vocabulary(), True), UINT16, language)
    reference = encode_by_sentence(bert_tokenizer(vocabulary(), True), texts, language)
    assert nested(encoder.encode(texts)) == reference


def test_special_tokens_in_text_are_characters() -> None:
    """A text that spells a special token gets the ids of its characters."""
    for tokenizer in (bert_tokenizer(vocabulary(), True), plain_tokenizer()):
        for language in ("en", "zh"):
            encoded = TextEncoder(tokenizer, UINT16, language).encode(["a [SEP] b [MASK][CLS]"])
            ids = encoded.tokens.tolist()
            assert len(ids) > 3 and not {0, 2, 3, 4} & set(ids)


@pytest.mark.parametrize("splitter", [None, lambda paragraph: split_sentences(paragraph, "en")])
def test_paragraphs_own_their_sentences(splitter: object) -> None:
    """Every paragraph has its sentences, and an empty one has none."""
    encoder = TextEncoder(bert_tokenizer(vocabulary(), True), UINT16, "en", splitter)  # type: ignore[arg-type]
    encoded = encoder.encode(["ab. B\n\u200b\nab", "", "c\n"])
    assert np.diff(encoded.paragraphs).tolist() == [2, 0, 1, 0, 1, 0]
    assert np.diff(encoded.documents).tolist() == [3, 0, 1]
    assert np.diff(encoder.encode([]).documents).tolist() == []


def test_splitter_decides_sentence_ends() -> None:
    """A function of the user replaces the rules."""
    encoder = TextEncoder(bert_tokenizer(vocabulary(), True), UINT16, "en", lambda p: p.split("-"))
    (document,) = nested(encoder.encode(["a. A-b c\nab"]))
    assert [len(sentence) for sentence in document] == [3, 2, 1]


def test_ids_above_uint16_survive() -> None:
    """A vocabulary of more than 65,536 ids keeps them."""
    words = {token: index for index, token in enumerate(SPECIAL_TOKENS)} | {"big": 70_000}
    encoder = TextEncoder(bert_tokenizer(words, True), np.dtype("<u4"), "en")
    assert encoder.encode(["big big"]).tokens.tolist() == [70_000, 70_000]


def plain_tokenizer() -> Tokenizer:
    """Return a tokenizer whose ids depend on the context: spaces are part of tokens."""
    tokenizer = Tokenizer(models.WordLevel(vocabulary() | {"▁a": 900, "a": 901}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


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
def test_sentencepiece_ids_match_tokenizer(sentencepiece_tokenizer: str, texts: list[str]) -> None:
    """kitoken gives the ids of the tokenizer on any cleaned text."""
    texts = ["\n".join(" ".join(line.split()) for line in text.split("\n")) for text in texts]
    encoder = TextEncoder(Tokenizer.from_str(sentencepiece_tokenizer), UINT16, "en")
    assert encoder.backend.name == "kitoken"
    reference = encode_by_sentence(Tokenizer.from_str(sentencepiece_tokenizer), texts, "en")
    assert nested(encoder.encode(texts)) == reference


def byte_level_tokenizer() -> Tokenizer:
    """Return a small byte-level BPE, in which the space before a word belongs to its token."""
    merges = [("Ġ", "a"), ("Ġ", "B"), ("a", "b")]
    letters = sorted({*pre_tokenizers.ByteLevel.alphabet()})
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters, *("".join(m) for m in merges)]
    model = models.BPE({token: n for n, token in enumerate(tokens)}, merges, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


@pytest.mark.parametrize("language", ["en", "zh"])
def test_byte_level_ids_are_of_running_text(language: str) -> None:
    """A later sentence begins with the token that has the space before it, as in running text."""
    tokenizer = byte_level_tokenizer()
    encoder = TextEncoder(byte_level_tokenizer(), UINT16, language)
    assert encoder.backend.name == "tokenizers" and "boundary" in encoder.backend.reason
    texts = ["ab ab. B ab! a", "ab。Ba\nB", "", "ab. B"]
    found = nested(encoder.encode(texts))
    for text, document in zip(texts, found, strict=True):
        expected = [
            token
            for paragraph in text.split("\n")
            for token in tokenizer.encode(paragraph, add_special_tokens=False).ids
        ]
        assert [token for sentence in document for token in sentence] == expected
    assert len(found[0]) == 2
    last = [tokenizer.id_to_token(token) for token in found[3][-1]]
    assert last == (["ĠB"] if language == "en" else ["ab", ".", "ĠB"])


def test_unigram_under_chinese_rules_is_running_text(sentencepiece_tokenizer: str) -> None:
    """Sentences without a space between them get the ids of the paragraph that they are in."""
    tokenizer = Tokenizer.from_str(sentencepiece_tokenizer)
    encoder = TextEncoder(Tokenizer.from_str(sentencepiece_tokenizer), UINT16, "zh")
    (document,) = nested(encoder.encode(["the cat。a dog！the end"]))
    ids = tokenizer.encode("the cat。a dog！the end", add_special_tokens=False).ids
    assert [token for sentence in document for token in sentence] == ids
    assert len(document) == 3


def test_truncation_and_padding_are_left_out() -> None:
    """What a tokenizer.json says of truncation and padding does not reach the corpus."""
    tokenizer = bert_tokenizer(vocabulary(), True)
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    for backend in ("auto", "tokenizers"):
        encoder = TextEncoder(tokenizer, UINT16, "en", backend=backend)
        assert len(encoder.encode(["a b c a b c"]).tokens) == 6


def test_splitter_may_return_a_generator() -> None:
    """Sentences of a user's function are taken from any iterable, such as spaCy's `doc.sents`."""
    encoder = TextEncoder(
        bert_tokenizer(vocabulary(), True), UINT16, "en", lambda p: (s for s in p.split("-"))
    )
    (document,) = nested(encoder.encode(["a-b-c"]))
    assert len(document) == 3


def fails(paragraph: str) -> list[str]:
    raise KeyError("model")


def leaves(paragraph: str) -> list[str]:
    sys.exit(0)


@pytest.mark.parametrize(
    ("splitter", "message"),
    [
        (lambda paragraph: paragraph, "returned a str: .*list of strings"),
        (lambda paragraph: [1], "must return a list of strings"),
        (lambda paragraph: None, "raised TypeError"),
        (fails, "begins 'ab c', raised KeyError"),
        (leaves, "raised SystemExit"),
    ],
)
def test_wrong_splitters_are_refused(splitter: object, message: str) -> None:
    """A user's function that fails, or returns no sentences, is named with the paragraph."""
    encoder = TextEncoder(bert_tokenizer(vocabulary(), True), UINT16, "en", splitter)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        encoder.encode(["ab c"])


def test_altered_text_is_marked() -> None:
    """Documents of which a user's function loses or changes text are marked, others are not."""
    lossy = {"a b.": ["a"], "ab": ["AB"]}
    encoder = TextEncoder(
        bert_tokenizer(vocabulary(), True), UINT16, "en", lambda p: lossy.get(p, p.split())
    )
    encoded = encoder.encode(["a b c", "c\na b.", "", "ab"])
    assert encoded.altered.tolist() == [False, True, False, True]
    plain = TextEncoder(bert_tokenizer(vocabulary(), True), UINT16, "en")
    assert not plain.encode(["a b c", "c"]).altered.any()


def test_sentences_of_splitters_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentences of a user's function are compared with the reference, too."""
    encoder = TextEncoder(bert_tokenizer(vocabulary(), True), UINT16, "en", lambda p: p.split("-"))
    right = encoder.backend.encode

    def wrong(sentences: Sequence[str]) -> tuple[IdArray, Int64Array]:
        ids, offsets = right(sentences)
        return ids + 1, offsets

    monkeypatch.setattr(encoder, "backend", replace(encoder.backend, encode=wrong))
    with pytest.raises(UserError, match="nanotoken tokenizes 'a"):
        encoder.encode(["a b-a c"])


@pytest.mark.parametrize("where", ["normalizer", "pre_tokenizer"])
def test_prefix_of_each_text_is_noticed(where: str) -> None:
    """Where a tokenizer adds a prefix to each text, sentences are not encoded alone."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "▁One": 1, "One": 2}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if where == "normalizer":
        tokenizer.normalizer = normalizers.Prepend("▁")
    else:
        first = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer, first])
    encoder = TextEncoder(tokenizer, UINT16, "en")
    assert "boundary" in encoder.backend.reason
    assert encoder.encode(["One. One"]).tokens.tolist()[-1] == 2


def test_any_division_into_batches_is_equal() -> None:
    """Texts encoded together have the ids and sentences that they have alone."""
    texts = random_texts(50)
    encoder = TextEncoder(bert_tokenizer(vocabulary(), True), UINT16, "en")
    together = nested(encoder.encode(texts))
    assert together == [nested(encoder.encode([text]))[0] for text in texts]
