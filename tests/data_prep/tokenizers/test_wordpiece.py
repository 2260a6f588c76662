"""WordPiece tokenizers: ids equal to those of transformers."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertTokenizer

from data_prep.errors import UserError
from data_prep.tokenizers.wordpiece import (
    SPECIAL_TOKENS,
    bert_tokenizer,
    read_vocabulary,
    train_wordpiece,
)

ROOT = Path(__file__).parents[3]
ODD_TEXTS = [
    "naïve Ångström ΣΊΣΥΦΟΣ İstanbul ß ﬁne",
    "e\u0301 o\u0308 \u0301lone 한국어 ｆｕｌｌ　ｗｉｄｔｈ",
    "zero\u200bwidth soft\u00adhyphen \x00null \ufffd bell\x07 tab\tnew\nline nbsp\u00a0x",
    "漢字とかな丁\u0308 豈更 𠀀 混ぜabc漢123",
    "🙂👩‍👩‍👧 $£€ ° ™ a°b don't—won’t «x» [MASKED] ##hash",
    "word" * 40,
]


def special_vocabulary(*tokens: str) -> str:
    return "".join(f"{token}\n" for token in (*SPECIAL_TOKENS, *tokens))


def test_special_tokens_have_first_ids(prose: Callable[[str, int], str]) -> None:
    """Special tokens have the first five ids."""
    tokenizer = train_wordpiece(
        lambda: [prose("special", 20)], vocab_size=150, lowercase=True, alphabet=100
    )
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert [tokenizer.token_to_id(token) for token in tokens] == [0, 1, 2, 3, 4]
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary))) and len(vocabulary) <= 150
    assert "[UNK]" not in tokenizer.encode("the captain answered").tokens


def test_training_is_reproducible(tmp_path: Path) -> None:
    """Training gives the same ids in every process."""
    text = (ROOT / "data_prep/sample_corpus/novels/carroll_alice/chapter_01.txt").read_text("utf-8")
    (tmp_path / "text").write_text(text, "utf-8")
    code = (
        "import sys; from data_prep.tokenizers.wordpiece import train_wordpiece\n"
        "lines = open(sys.argv[1], encoding='utf-8').read().splitlines()\n"
        "t = train_wordpiece(lambda: lines, vocab_size=600, lowercase=True, alphabet=100)\n"
        "print(sorted(t.get_vocab().items()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "text")]
    runs = {
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(runs) == 1 and len(runs.pop()) > 5000


def test_alphabet_excludes_rare_characters() -> None:
    """Rare characters are not in the alphabet."""
    texts = ["abab ab ba " * 50 + "q"]
    tokenizer = train_wordpiece(lambda: texts, vocab_size=20, lowercase=True, alphabet=2)
    assert "q" not in tokenizer.get_vocab() and {"a", "b", "##a", "##b"} <= set(
        tokenizer.get_vocab()
    )
    assert tokenizer.encode("q", add_special_tokens=False).tokens == ["[UNK]"]


def test_too_small_vocabulary_is_refused() -> None:
    """A vocabulary smaller than its alphabet is refused."""
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size 10 is too small for 4 characters"):
        train_wordpiece(lambda: ["abcd dcba"], vocab_size=10, lowercase=True, alphabet=100)


@pytest.mark.parametrize("lowercase", [True, False])
def test_ids_match_transformers(tmp_path: Path, lowercase: bool) -> None:
    """Ids equal those of transformers on unusual Unicode."""
    corpus = ODD_TEXTS + ["The quick brown fox, naive cafe."] * 3
    ours = train_wordpiece(lambda: corpus * 3, vocab_size=400, lowercase=lowercase, alphabet=300)
    vocabulary = ours.get_vocab()
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n", "utf-8")
    theirs = BertTokenizer.from_pretrained(tmp_path, do_lower_case=lowercase)
    for text in ODD_TEXTS:
        assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(
            text, add_special_tokens=False
        )
        assert ours.encode(text, "pair").type_ids == theirs(text, "pair")["token_type_ids"]


def test_vocabulary_file_keeps_ids(tmp_path: Path) -> None:
    """The tokens of a vocabulary file keep their ids."""
    path = tmp_path / "vocab.txt"
    path.write_text(special_vocabulary("the", "##re"), newline="\r\n")
    assert read_vocabulary(path, True).encode("there").ids == [2, 5, 6, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (special_vocabulary(), "has 5 tokens, which leaves none for text"),
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\na\n", r"has no \[MASK\]"),
    ],
)
def test_invalid_vocabulary_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    """A vocabulary file without tokens for BERT or for text is refused."""
    path = tmp_path / "vocab.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_vocabulary(path, True)


def test_missing_vocabulary_file_is_refused(tmp_path: Path) -> None:
    """A missing vocabulary file is refused."""
    with pytest.raises(UserError, match="There is no vocabulary"):
        read_vocabulary(tmp_path / "none.txt", True)


def test_decoder_joins_pieces() -> None:
    """The pipeline decodes pieces to words."""
    tokenizer = bert_tokenizer(
        {token: i for i, token in enumerate((*SPECIAL_TOKENS, "un", "##do", "it", "."))}, True
    )
    assert tokenizer.decode(tokenizer.encode("Undo it.").ids) == "undo it."
