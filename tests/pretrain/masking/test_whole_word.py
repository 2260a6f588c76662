"""Whole words: where they start in every kind of vocabulary, and that none is masked in part."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from data_prep.counter_rng import key_of
from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer, save_tokenizer
from data_prep.tokenizers.wordpiece import SPECIAL_TOKENS, bert_tokenizer
from pretrain.masking.packed_rows import PackedRows
from pretrain.masking.whole_word import WholeWords, WordTable, read_word_table
from tests.sample_layouts import SPECIALS, assert_share, draw_samples, lay_out

KEY = key_of("mask", 0, 0)


def wordpiece(folder: Path, pieces: str) -> LoadedTokenizer:
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL_TOKENS, *pieces.split()])}
    save_tokenizer(bert_tokenizer(vocabulary, lowercase=True), folder / "wp", "wordpiece")
    return load_tokenizer(folder / "wp")


def sentencepiece(folder: Path, pieces: str) -> LoadedTokenizer:
    entries = [(piece, -1.0) for piece in [*SPECIAL_TOKENS, *pieces.split()]]
    tokenizer = Tokenizer(models.Unigram(entries, unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    save_tokenizer(tokenizer, folder / "sp", "existing")
    return load_tokenizer(folder / "sp")


def words_in(tokenizer: LoadedTokenizer, a: str, b: str = "", chinese: bool = False) -> list[str]:
    """Return the words of a sample, pieces joined by `+`, special tokens left out."""
    table = read_word_table(tokenizer, tokenizer.vocab_size, chinese)
    ids = [[tokenizer.backend.token_to_id(piece) for piece in text.split()] for text in (a, b)]
    assert None not in ids[0] + ids[1]
    rows = lay_out([(0, ids[0], ids[1])], padding=1)
    pieces = [tokenizer.backend.id_to_token(int(index)) for index in rows.input_ids]
    words = ["+".join(w) for w in np.split(np.array(pieces), table.word_starts(rows)[1:])]
    return [word for word in words if word not in SPECIAL_TOKENS]


def test_wordpiece_word_starts(tmp_path: Path) -> None:
    """A WordPiece word continues at pieces with the prefix `##`."""
    tokenizer = wordpiece(tmp_path, "walk ##ing ##s , don ' t 中 国")
    found = words_in(tokenizer, "walk ##ing , don ' t walk ##s 中 国 walk")
    assert found == ["walk+##ing", ",", "don", "'", "t", "walk+##s", "中", "国", "walk"]


def test_segment_start_is_word_start(tmp_path: Path) -> None:
    """The first token of a segment starts a word, whatever its piece."""
    tokenizer = wordpiece(tmp_path, "walk ##ing ##s")
    found = words_in(tokenizer, "##ing ##s walk", "##s ##s walk ##ing")
    assert found == ["##ing+##s", "walk", "##s+##s", "walk+##ing"]


def test_sentencepiece_word_starts(tmp_path: Path) -> None:
    """A SentencePiece word starts at U+2581, at punctuation and at Chinese characters."""
    tokenizer = sentencepiece(tmp_path, "▁walk ing ▁ . ▁don ' t 中国 人 ▁中 の abc")
    found = words_in(tokenizer, "▁walk ing . ▁don ' t ▁ ing", "中国 人 abc ing ▁中 の の")
    assert found == [
        "▁walk+ing", ".", "▁don", "'", "t", "▁+ing",
        "中国", "人", "abc+ing", "▁中", "の", "の",
    ]  # fmt: skip


def test_byte_level_word_starts(tmp_path: Path) -> None:
    """A word of byte-level BPE starts at U+0120 and at punctuation."""
    pieces = [*SPECIAL_TOKENS, "Ġwalk", "ing", "walk", "!"]
    model = models.BPE({piece: i for i, piece in enumerate(pieces)}, [])
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    save_tokenizer(tokenizer, tmp_path / "bpe", "existing")
    found = words_in(load_tokenizer(tmp_path / "bpe"), "walk ing Ġwalk ing !")
    assert found == ["walk+ing", "Ġwalk+ing", "!"]


def test_unmarked_vocabulary_is_user_error(tmp_path: Path) -> None:
    """A vocabulary that marks no word starts is an error."""
    with pytest.raises(UserError, match=r"No piece of .*wp is marked .* mask\.policy"):
        read_word_table(wordpiece(tmp_path, "walk in"), 7)


def test_ids_beyond_vocabulary_start_words(tmp_path: Path) -> None:
    """Ids beyond the tokenizer's vocabulary start a word."""
    table = read_word_table(wordpiece(tmp_path, "walk ##ing"), 20)
    assert table.begins[7:].all() and not table.begins[6]


def chosen_words(rows: PackedRows, table: WordTable, rate: float) -> tuple[list[int], int]:
    """Return how many tokens of each word are chosen, where any is, and the number of words."""
    chosen = WholeWords(table).choose(rows, KEY, rate)
    words = table.word_starts(rows)
    owner = np.searchsorted(words, chosen, side="right") - 1
    sizes = np.diff(np.append(words, len(rows.input_ids)))
    held = np.bincount(owner, minlength=len(words))
    assert set(held[held > 0] - sizes[held > 0]) == {0}, "a word is masked in part"
    return held[held > 0].tolist(), len(words)


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.6])
def test_whole_words_masked_at_rate(rate: float) -> None:
    """All tokens of a word are masked or none, and the share of masked tokens is the rate."""
    rows = lay_out(draw_samples(1500, 100))
    # Two of three ids continue a word, so that words are long.
    table = WordTable(begins=(np.arange(100) % 3 == 0) | (np.arange(100) < SPECIALS), closes=None)
    sizes, words = chosen_words(rows, table, rate)
    assert_share(len(sizes), words, rate)
    lengths = np.diff(np.append(table.word_starts(rows), len(rows.input_ids)))
    assert lengths.max() > 6
    # Tokens come in clusters: the deviation grows by the mean square over the mean of a word.
    cluster = float((lengths**2).sum() / lengths.sum())
    assert_share(sum(sizes), len(rows.input_ids), rate, cluster)
