"""Case and accents by language: Turkish capitals, and vowel signs that are no accents."""

from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from data_prep.errors import UserError
from data_prep.tokenizers.casing import bert_normalizer, check_stripped_marks
from data_prep.tokenizers.folder import save_tokenizer
from data_prep.tokenizers.wordpiece import train_wordpiece

HINDI = "भारत एक विशाल देश है। यहाँ की भाषाएँ बहुत हैं और संस्कृति पुरानी है।"
BENGALI = "বাংলা ভাষা একটি ইন্দো আর্য ভাষা যা দক্ষিণ এশিয়ার মানুষ বলে।"
TAMIL = "தமிழ் மொழி தமிழர்களின் தாய்மொழியாகும் இது ஒரு செம்மொழி."
THAI = "ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอน"
JAPANESE = "がぎぐげご、日本語の文字には濁点が多いです。データベースをご覧ください。"
TURKISH = "Irmağın kıyısında İnci ile Işık IŞIL IŞIL parlayan bir İzmir gecesi gördü."


@pytest.mark.parametrize("text", [HINDI, BENGALI, TAMIL, THAI, JAPANESE])
def test_vowel_signs_are_not_stripped(text: str) -> None:
    """A text whose vowels would be dropped as accents is refused, with the key that keeps them."""
    with pytest.raises(UserError, match=r"vowel signs .* tokenizer\.strip_accents=false"):
        train_wordpiece(lambda: [text] * 9, vocab_size=400, lowercase=True, alphabet=200)


@pytest.mark.parametrize("text", [HINDI, BENGALI, TAMIL, THAI, JAPANESE])
def test_kept_vowel_signs_survive_export(text: str, tmp_path: Path) -> None:
    """With `strip_accents` false the words decode to themselves, also in plain transformers."""
    tokenizer = train_wordpiece(
        lambda: [text] * 9, vocab_size=400, lowercase=True, alphabet=200, strip_accents=False
    )
    save_tokenizer(tokenizer, tmp_path / "tokenizer", "wordpiece")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert theirs.encode(text) == tokenizer.encode(text).ids
    decoded = theirs.decode(theirs.encode(text), skip_special_tokens=True)
    assert "".join(decoded.split()) == "".join(text.split())
    assert theirs.unk_token_id not in theirs.encode(text)


@pytest.mark.parametrize("text", ["Éclair café " * 9, "שָׁלוֹם عَرَبِيّ " * 9, "ёлка йод " * 9])
def test_stripped_accents_are_reported(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Accents and points are dropped as BERT does, with a line in the log."""
    check_stripped_marks(Counter(text), lowercase=True, strip_accents=None)
    assert "accents are dropped from" in capsys.readouterr().err


def test_quoted_vowel_signs_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """A text that only quotes such a script is trained, and the loss counted."""
    check_stripped_marks(Counter("plain words " * 900 + HINDI), True, None)
    assert "vowel signs or voicing marks are dropped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lowercase", "strip_accents"), [(True, True), (True, False), (False, None), ("turkish", None)]
)
def test_chosen_accents_are_not_refused(lowercase: object, strip_accents: bool | None) -> None:
    """Nothing is refused where the recipe states what to do, or nothing is stripped."""
    check_stripped_marks(Counter(HINDI), lowercase, strip_accents)  # type: ignore[arg-type]


def test_turkish_capitals_lower_to_their_own() -> None:
    """I becomes dotless ı, İ becomes i, composed or not, and other letters keep their marks."""
    normalize = bert_normalizer("turkish", None).normalize_str
    assert normalize("ISPARTA İzmir I\u0307zmir ÇAĞ Şiş") == "ısparta izmir izmir çağ şiş"
    assert bert_normalizer("turkish", True).normalize_str("ÇAĞ IŞIK") == "cag ısık"


def test_turkish_tokenizer_survives_export(tmp_path: Path) -> None:
    """Plain transformers gives a Turkish tokenizer's ids from the folder."""
    ours = train_wordpiece(lambda: [TURKISH] * 9, vocab_size=200, lowercase="turkish", alphabet=100)
    save_tokenizer(ours, tmp_path / "tokenizer", "wordpiece")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    for text in (TURKISH, "IRMAK ırmak İNCİ inci", "[MASK] IŞIK"):
        assert theirs.encode(text) == ours.encode(text).ids
    encode = ours.encode
    assert encode("IŞIK").ids == encode("ışık").ids and encode("İNCİ").ids == encode("inci").ids
