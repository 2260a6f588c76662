"""Fast libraries give the ids of `tokenizers`, and are left out with a reason where they do not."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from data_prep.errors import UserError
from data_prep.tokenize.backends import Backend, choose_backend, reference_backend
from data_prep.tokenize.cross_check import CrossCheck
from data_prep.tokenizers.sentencepiece import to_fast_tokenizer, train_sentencepiece
from data_prep.tokenizers.wordpiece import SPECIAL_TOKENS, bert_tokenizer

SAMPLE = Path(__file__).parents[3] / "data_prep/sample_corpus/novels/carroll_alice/chapter_01.txt"
PIECES = "the river house king under walk ed ing s e x y a 中 国 é ß \u0301 , . ! - [ ] SEP".split()
FRAMES = ("{}", "xx{}yy", "xx {}yy", "xx {}\u0301yy", "e{}\u0301", "{}x y", "x y{}")


def wordpiece(lowercase: bool = True) -> Tokenizer:
    tokens = [*SPECIAL_TOKENS, *PIECES, *(f"##{piece}" for piece in PIECES)]
    tokenizer = bert_tokenizer({token: n for n, token in enumerate(tokens)}, lowercase)
    tokenizer.encode_special_tokens = True
    return tokenizer


def sentencepiece(kind: Any) -> Tokenizer:
    lines = SAMPLE.read_text("utf-8").split("\n")
    model = train_sentencepiece(
        lambda: lines, kind=kind, vocab_size=300, lowercase=True, alphabet=200
    )
    tokenizer = to_fast_tokenizer(model)
    tokenizer.encode_special_tokens = True
    return tokenizer


def assert_equal_ids(fast: Backend, reference: Backend, sentences: list[str]) -> None:
    """Compare ids and offsets of many sentences, and name the first that differs."""
    (ids, offsets), (expected, borders) = fast.encode(sentences), reference.encode(sentences)
    if np.array_equal(ids, expected) and np.array_equal(offsets, borders):
        return
    for n, sentence in enumerate(sentences):
        found = ids[offsets[n] : offsets[n + 1]].tolist()
        assert found == expected[borders[n] : borders[n + 1]].tolist(), ascii(sentence)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("lowercase", [True, False])
def test_nanotoken_matches_on_every_character(frame: str, lowercase: bool) -> None:
    """Each character of the first three planes, alone and beside others, gets the same ids."""
    tokenizer = wordpiece(lowercase)
    fast = choose_backend(tokenizer)
    assert fast.name == "nanotoken"
    dense, sparse = range(1, 0x3100), range(0x3100, 0x30000, 7)
    codes = [code for code in (*dense, *sparse) if not 0xD800 <= code < 0xE000]
    sentences = [frame.format(chr(code)) for code in codes]
    assert_equal_ids(fast, reference_backend(tokenizer), sentences)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_kitoken_matches_on_every_character(frame: str, kind: str) -> None:
    """Each character gets the same ids, where the normalizer leaves nothing of it, too."""
    tokenizer = sentencepiece(kind)
    fast = choose_backend(tokenizer)
    assert fast.name == "kitoken"
    dense, sparse = range(1, 0x3100), range(0x3100, 0x30000, 37)
    codes = [code for code in (*dense, *sparse) if not 0xD800 <= code < 0xE000]
    sentences = [frame.format(chr(code)) for code in codes]
    assert_equal_ids(fast, reference_backend(tokenizer), sentences)


def test_special_tokens_in_text_are_characters() -> None:
    """No library finds a special token in a text that spells one."""
    for tokenizer in (wordpiece(), sentencepiece("unigram")):
        sentences = ["a [SEP] b", "[MASK]", "[CLS][PAD]"]
        assert_equal_ids(choose_backend(tokenizer), reference_backend(tokenizer), sentences)


@pytest.mark.parametrize(("package", "kind"), [("nanotoken", "wordpiece"), ("kitoken", "unigram")])
def test_missing_library_is_named(package: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a fast library the reference is taken, and the reason is given."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    tokenizer = wordpiece() if kind == "wordpiece" else sentencepiece(kind)
    backend = choose_backend(tokenizer)
    assert (backend.name, backend.reason) == ("tokenizers", f"{package} is not installed")


def test_unsupported_tokenizers_have_reasons() -> None:
    """A tokenizer that no fast library computes is left to the reference, with the reason."""
    words = {token: n for n, token in enumerate(SPECIAL_TOKENS)}
    odd = wordpiece()
    odd.pre_tokenizer = pre_tokenizers.UnicodeScripts()
    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel()
    for tokenizer, reason in (
        (odd, "nanotoken does not support it"),
        (byte_level, "SentencePiece's models alone"),
        (Tokenizer(models.WordLevel(words, "[UNK]")), "no faster library computes WordLevel"),
    ):
        backend = choose_backend(tokenizer)
        assert backend.name == "tokenizers" and reason in backend.reason


def test_difference_stops_the_build() -> None:
    """Ids that the reference does not give are refused with the text that shows them."""
    tokenizer = wordpiece()
    paragraphs = ["the king walked", "the house"]
    ids, offsets = reference_backend(tokenizer).encode(paragraphs)
    check = CrossCheck(tokenizer, "fast")
    check.compare(paragraphs.__getitem__, ids, offsets[1:])
    wrong = ids.copy()
    wrong[1] += 1
    with pytest.raises(UserError, match=r"fast tokenizes 'the king walked' .* from token 1 on"):
        check.compare(paragraphs.__getitem__, wrong, offsets[1:])


def test_unusual_paragraphs_are_compared() -> None:
    """Among many ordinary paragraphs, one in another script is compared."""
    tokenizer = wordpiece()
    paragraphs = ["the river"] * 10 + ["中国"] + ["the house"] * 10
    ids, offsets = reference_backend(tokenizer).encode(paragraphs)
    ids = ids.copy()
    ids[offsets[10]] += 1
    with pytest.raises(UserError, match="中国"):
        CrossCheck(tokenizer, "fast").compare(paragraphs.__getitem__, ids, offsets[1:])


def test_special_tokens_outside_vocabulary_are_characters() -> None:
    """A special token that is in the list of added tokens alone is not found in text either."""
    tokens = [*SPECIAL_TOKENS, *PIECES, *(f"##{piece}" for piece in PIECES)]
    del tokens[SPECIAL_TOKENS.index("[MASK]")]
    model = models.WordPiece({token: n for n, token in enumerate(tokens)}, unk_token="[UNK]")
    tokenizer = wordpiece()
    tokenizer.model = model
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:
        token["id"] = (
            len(tokens) if token["content"] == "[MASK]" else tokens.index(token["content"])
        )
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.encode_special_tokens = True
    assert tokenizer.token_to_id("[MASK]") == len(tokens)
    assert_equal_ids(choose_backend(tokenizer), reference_backend(tokenizer), ["x [MASK] y"])


def unigram(digits: int, special: float = -20.0) -> Tokenizer:
    """Return a case-folding Unigram, its scores in 32 bits or with more digits."""
    pieces = {"▁": 2.0, ".": 3.1, "..": 4.7, "σ": 3.3, "ς": 3.7, "α": 3.9, "σα": 5.1, "ασ": 5.3}
    scores = [(piece, -score if digits == 32 else -score / 3) for piece, score in pieces.items()]
    if digits == 32:
        scores = [(piece, float(np.float32(score))) for piece, score in scores]
    named = [("<unk>", special), ("<mask>", special)]
    tokenizer = Tokenizer(models.Unigram([*named, *scores], 0))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([token for token, _ in named])
    tokenizer.encode_special_tokens = True
    return tokenizer


def test_final_sigma_is_that_of_tokenizers() -> None:
    """A capital sigma at the end of a word is lower-cased as the reference does."""
    tokenizer = unigram(32)
    fast = choose_backend(tokenizer)
    assert fast.name == "kitoken"
    assert_equal_ids(fast, reference_backend(tokenizer), ["ΣΑΣ", "ασ ΑΣ.", "....."])


def test_scores_of_64_bits_are_left_to_tokenizers() -> None:
    """Scores with more digits than SentencePiece's would be rounded, and paths change."""
    backend = choose_backend(unigram(64))
    assert backend.name == "tokenizers" and "32 bits" in backend.reason


@pytest.mark.parametrize("special", [-92.63149070739746, -201.1])
def test_special_scores_may_have_64_bits(special: float) -> None:
    """The scores of special tokens, which no path holds, do not keep kitoken from being used.

    The reference adds the least of them for an unknown character, after which the sums of paths
    with the same pieces in another order must stay equal.
    """
    tokenizer = unigram(32, special)
    fast = choose_backend(tokenizer)
    assert fast.name == "kitoken"
    draws = np.random.default_rng(7)
    parts = [
        ".",
        ".",
        "..",
        "σα",
        "ασ",
        "Σ",
        "z",
        "你",
        " ",
        "<mask>",
        "<unk>",
        "<MASK>",
        "\uff1cmask>",
        "<",
        "[SEP]",
    ]
    sentences = [
        "".join(parts[draw] for draw in draws.integers(len(parts), size=size))
        for size in draws.integers(1, 40, size=4_000)
    ]
    assert_equal_ids(fast, reference_backend(tokenizer), sentences)


def test_trained_unigram_is_encoded_by_kitoken() -> None:
    """The scores of a tokenizer trained here never keep kitoken from being used."""
    lines = [line.upper() for line in SAMPLE.read_text("utf-8").split("\n")]
    for vocab_size in (150, 300, 420):
        model = train_sentencepiece(
            lambda: lines, kind="unigram", vocab_size=vocab_size, lowercase=True, alphabet=100
        )
        assert choose_backend(to_fast_tokenizer(model)).name == "kitoken"
