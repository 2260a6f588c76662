"""A changed vocabulary: each new token starts from the old tokens that its text is made of."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from data_prep.tokenizers.folder import LoadedTokenizer, loaded_tokenizer
from data_prep.tokenizers.roles import SPECIAL_TOKENS
from data_prep.tokenizers.wordpiece import bert_tokenizer
from pretrain.start.token_forms import Form, TokenForms
from pretrain.start.vocabulary import VocabularyTransfer, plan_transfer

OLD = [*SPECIAL_TOKENS, "the", "play", "##ing", "##s", "##i", "##n", "##g", ",", "中", "##中", "of",
       "[unused0]"]  # fmt: skip
ROLES = ("pad", "unk", "cls", "sep", "mask")


def loaded(backend: Tokenizer, special: tuple[str, ...] = SPECIAL_TOKENS) -> LoadedTokenizer:
    ids = {role: backend.token_to_id(token) for role, token in zip(ROLES, special, strict=True)}
    return loaded_tokenizer(Path("made"), backend, ids)


def wordpiece(tokens: list[str], added: tuple[str, ...] = (), lowercase: bool = True) -> Tokenizer:
    backend = bert_tokenizer({token: n for n, token in enumerate(tokens)}, lowercase=lowercase)
    backend.add_tokens(list(added))
    return backend


def unigram(tokens: list[str]) -> Tokenizer:
    """Return a SentencePiece-like tokenizer: words begin with a mark."""
    scores = [(token, 0.0 if n < len(SPECIAL_TOKENS) else -1.0) for n, token in enumerate(tokens)]
    backend = Tokenizer(models.Unigram(scores, unk_id=1))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return backend


def byte_level(tokens: list[str]) -> Tokenizer:
    backend = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return backend


def origins(old: Tokenizer, new: Tokenizer) -> dict[str, list[str]]:
    """Return the old tokens from which each new one starts, empty for the mean of all."""
    transfer = plan_transfer(loaded(old), loaded(new))
    return {
        token: [old.id_to_token(index) for index in transfer.sources[new.token_to_id(token)]]
        for token in new.get_vocab(with_added_tokens=True)
    }


def test_tokens_keep_their_embedding_wherever_they_move() -> None:
    """A token of both vocabularies starts from itself, a special one from that of its role."""
    tokens = ["of", "[MASK]", "##ing", "[SEP]", "the", "[CLS]", "[UNK]", "[PAD]", "[unused0]"]
    found = origins(wordpiece(OLD), wordpiece(tokens))
    assert found == {token: [token] for token in tokens}


def test_special_tokens_follow_their_role() -> None:
    """Special tokens of another name start from those of their role, not from pieces."""
    special = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
    vocabulary = {token: n for n, token in enumerate([*special, "the"])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(list(special))
    transfer = plan_transfer(loaded(wordpiece(OLD)), loaded(backend, special))
    assert transfer.sources == [[0], [1], [2], [3], [4], [OLD.index("the")]]


def test_new_word_is_mean_of_its_pieces() -> None:
    """A word and the rest of a word start from the pieces that the old tokenizer makes of them."""
    new = [*SPECIAL_TOKENS, "playing", "plays", "##ings", "##ng", "Play", "qqq", "##中", "##,"]
    found = origins(wordpiece(OLD), wordpiece(new, lowercase=False))
    assert found["playing"] == ["play", "##ing"]
    assert found["plays"] == ["play", "##s"]
    assert found["##ings"] == ["##ing", "##s"], "inside a word, the pieces are those inside a word"
    assert found["##ng"] == ["##n", "##g"]
    assert found["Play"] == ["play"], "in the case of the old tokenizer"
    assert found["qqq"] == [], "no known piece"
    assert found["##中"] == ["##中"]
    assert found["##,"] == [","], "punctuation is never inside a word"


def test_added_word_starts_from_its_pieces() -> None:
    """A word that was added to a tokenizer starts as the mean of the pieces it was split into."""
    old, new = wordpiece(OLD), wordpiece(OLD, added=("playings", "of the"))
    found = origins(old, new)
    assert found["playings"] == ["play", "##ing", "##s"]
    assert found["of the"] == ["of", "the"]
    assert all(found[token] == [token] for token in OLD)


def test_counts_add_up() -> None:
    """Kept, new and unknown tokens are all of the new vocabulary; other old ones are dropped."""
    new = wordpiece([*SPECIAL_TOKENS, "the", "plays", "qqq", "[unused7]"])
    transfer = plan_transfer(loaded(wordpiece(OLD)), loaded(new))
    counts = (transfer.kept, transfer.by_pieces, transfer.without_pieces, transfer.dropped)
    assert counts == (6, 1, 2, len(OLD) - 6)
    assert transfer.describe() == (
        "6 tokens kept, 1 new as the mean of their old pieces, 2 without pieces (mean of all), "
        f"{len(OLD) - 6} dropped"
    )


UNIGRAM = [*SPECIAL_TOKENS, "▁the", "▁play", "ing", "s", ",", "▁", "t", "h", "e", "▁The"]


def test_sentencepiece_and_wordpiece_match_by_form() -> None:
    """Tokens of another notation match where both begin a word, or neither does."""
    found = origins(wordpiece(OLD), unigram([*UNIGRAM, "▁playing", "ings"]))
    assert found["▁the"] == ["the"] and found["▁play"] == ["play"]
    assert found["ing"] == ["##ing"] and found["s"] == ["##s"]
    assert found[","] == [","]
    assert found["▁playing"] == ["play", "##ing"] and found["ings"] == ["##ing", "##s"]
    assert found["▁The"] == ["the"]
    assert found["▁"] == []
    back = origins(unigram(UNIGRAM), wordpiece([*OLD, "plays", "##the"]))
    assert back["the"] == ["▁the"] and back["##ing"] == ["ing"] and back[","] == [","]
    assert back["plays"] == ["▁play", "s"]
    assert sorted(back["##the"]) == ["e", "h", "t"], "not the token that begins a word"
    assert back["of"] == [], "unknown letters have no pieces, and a space alone is none"


def test_byte_level_tokens_match_by_form() -> None:
    """A byte-level token stands for the text of its bytes; a part of a character has no form."""
    tokens = [*SPECIAL_TOKENS, "Ġthe", "Ġplay", "ing", "Ċ", "Ġcaf\u00c3\u00a9", "\u00c3", "é"]
    forms = TokenForms(loaded(byte_level(tokens)))
    assert forms.form("Ġthe") == Form("the", True)
    assert forms.form("ing") == Form("ing", False)
    assert forms.form("Ġcaf\u00c3\u00a9") == Form("café", True)
    assert forms.form("\u00c3") is None
    found = origins(wordpiece(OLD), byte_level(tokens))
    assert found["Ġthe"] == ["the"] and found["ing"] == ["##ing"] and found["\u00c3"] == []
    same = origins(byte_level(tokens), byte_level(tokens[::-1]))
    assert same == {token: [token] for token in tokens}


@pytest.mark.parametrize("shape", [(17, 3), (17,)])
def test_rows_are_means_of_their_sources(shape: tuple[int, ...]) -> None:
    """Embeddings and biases: a copy of one source, the mean of several, or of all ordinary ones."""
    old = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    transfer = VocabularyTransfer(
        sources=[[4], [], [3, 3, 16], [5, 6], []],
        ordinary=[5, 6, 7],
        kept=0,
        by_pieces=0,
        without_pieces=0,
        dropped=0,
    )
    found = transfer.apply(old)
    table = old.numpy().astype(np.float64)
    expected = [table[4], table[5:8].mean(0), table[[3, 3, 16]].mean(0), table[5:7].mean(0)]
    assert torch.equal(found[0], old[4])
    # The means are of the same fp64 numbers; they may differ in the last bit of fp32.
    np.testing.assert_allclose(found.numpy(), [*expected, expected[1]], rtol=1e-6)
