"""SentencePiece vocabularies, unigram and BPE: trained, and converted to fast tokenizers.

SentencePiece is used for training alone; `tokenizers` encodes, and a folder has no SentencePiece
model: tokenizer.json has all of it (scores or merges, the table of the normaliser).

Ids equal SentencePiece's own, except where the two libraries differ:

- Rare sequences of combining marks: ours are in canonical order and composed (NFC) first, and
  those after a character that the normaliser replaces, such as a no-break space, are lost.
- SentencePiece adds the scores of a sentence in 32 bits, `tokenizers` those of a word in 64: of
  two unigram paths of nearly equal scores (1 + 11, 11 + 1), each may take another.
- "İ" becomes "i" and a dot, not itself, where case is folded; with `turkish`, "i", and "I" "ı".
- A text that spells "[MASK]" is the special token by default, and characters with
  `encode_special_tokens`; to SentencePiece it is always characters.

Spaces follow SentencePiece: those at both ends are dropped, several are one, and U+2581 in a text
is a space.
"""

import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from sentencepiece import (
    SentencePieceNormalizer,
    SentencePieceTrainer,
    sentencepiece_model_pb2,
)
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from data_prep.errors import UserError
from data_prep.progress import log
from data_prep.tokenizers.alphabet import count_characters, most_frequent
from data_prep.tokenizers.casing import Lowercase, lower_turkish_capitals, turkish_capitals
from data_prep.tokenizers.roles import SPECIAL_TOKENS, add_bert_roles

_SPACE = "\u2581"
# NFKC, with every word separator replaced by a space; the second folds case as well.
_CASED, _UNCASED = "nmt_nfkc", "nmt_nfkc_cf"
# SentencePiece drops lines with its mark of an unknown character, and NUL ends its strings.
_RESERVED = "\u2585\0"
# SentencePiece drops lines above a length in bytes; no character takes more than four.
_LINE_CHARS = 2_000
# Each thread sums its own floats, so their number decides the last bits of the scores.
_THREADS = 8
_SILENT = 2


def train_sentencepiece(
    texts: Callable[[], Iterable[str]],
    *,
    kind: Literal["unigram", "bpe"],
    vocab_size: int,
    lowercase: Lowercase,
    alphabet: int,
) -> bytes:
    """Train a SentencePiece model; the same texts give the same bytes, in any process.

    SentencePiece's `character_coverage` is a share, and none below 0.98. Here the characters are
    counted after normalisation and the rarer ones taken out of the text, so `alphabet` means what
    it does for WordPiece. A cased model also keeps the letters of the special tokens.

    Args:
        texts: returns an iterator over the training texts; called twice. SentencePiece holds all of
            the texts in memory: 100 MB take about 2 GB (unigram) while it trains.
        kind: SentencePiece's algorithm.
        vocab_size: ids to reach; a small text may give fewer.
        lowercase: whether case is folded (`nmt_nfkc_cf` instead of `nmt_nfkc`), and by which rule;
            accents stay.
        alphabet: how many characters to keep; rarer ones become [UNK].

    Returns:
        the serialised model; its ids 0-4 are [PAD] [UNK] [CLS] [SEP] [MASK].

    Raises:
        UserError: when the text is empty, and when the vocabulary cannot hold the alphabet.
    """
    normalize = _training_normalizer(lowercase)
    counts = count_characters(map(normalize, texts()))
    for character in (" ", *_RESERVED):
        counts.pop(character, None)
    kept = most_frequent(counts, alphabet)
    log(
        f"{sum(counts.values()):,} characters of {len(counts):,} kinds, of which "
        f"{len(kept):,} are kept; training {vocab_size:,} SentencePiece pieces"
    )
    named = [] if lowercase else sorted(set("".join(SPECIAL_TOKENS)))
    _check_room(vocab_size, len({*kept, *named}))
    lines = _lines(map(normalize, texts()), {*_RESERVED, *counts}.difference(kept, named))
    return _train(
        lines,
        vocab_size,
        model_type=kind,
        vocab_size=vocab_size,
        normalization_rule_name=_UNCASED if lowercase else _CASED,
        required_chars="".join(named),
    )


def to_fast_tokenizer(model: bytes, *, turkish: bool = False) -> Tokenizer:
    """Return the `tokenizers` pipeline of a model that `train_sentencepiece` made.

    Args:
        model: serialised.
        turkish: whether it was trained with `lowercase` "turkish", which a model does not record.
    """
    # The classes of a protocol buffer are made at run time, where mypy does not see them.
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(model)
    unigram = proto.trainer_spec.model_type == proto.trainer_spec.UNIGRAM
    tokenizer = Tokenizer(_unigram(proto) if unigram else _bpe(proto))
    tokenizer.normalizer = _normalizer(proto.normalizer_spec, turkish)
    tokenizer.pre_tokenizer = _words()
    tokenizer.decoder = decoders.Metaspace(_SPACE, prepend_scheme="always", split=True)
    add_bert_roles(tokenizer)
    return tokenizer


def _training_normalizer(lowercase: Lowercase) -> Callable[[str], str]:
    """Return a function that normalises a text as the finished tokenizer will."""
    table = SentencePieceNormalizer(
        rule_name=_UNCASED if lowercase else _CASED,
        add_dummy_prefix=False,
        escape_whitespaces=False,
    )

    def normalize(text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        if lowercase == "turkish":
            text = lower_turkish_capitals(text)
        return str(table.Normalize(text.lower() if lowercase else text))

    return normalize


def _check_room(vocab_size: int, characters: int) -> None:
    # The mark of a space is a character too.
    if (fixed := len(SPECIAL_TOKENS) + 1 + characters) >= vocab_size:
        raise UserError(
            f"tokenizer.vocab_size {vocab_size} is too small for {characters} characters, "
            f"which alone take {fixed} ids: raise it, or lower tokenizer.alphabet."
        )


def _lines(texts: Iterable[str], unwanted: set[str]) -> Iterator[str]:
    """Yield lines that SentencePiece accepts, with a space for each unwanted character."""
    pattern = re.compile("[" + "".join(map(re.escape, sorted(unwanted))) + "]")
    for text in texts:
        yield from filter(None, _cut(pattern.sub(" ", text)))


def _cut(text: str) -> Iterator[str]:
    """Cut a text into lines of at most `_LINE_CHARS`, at a space if there is one."""
    start = 0
    while start < len(text):
        end = start + _LINE_CHARS
        if end < len(text) and (space := text.rfind(" ", start + 1, end)) > 0:
            end = space
        yield text[start:end].strip(" ")
        start = end


def _train(lines: Iterable[str], size: int, **options: Any) -> bytes:
    failures: list[BaseException] = []
    model = io.BytesIO()
    pad, unk, cls, sep, mask = SPECIAL_TOKENS
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_record_failure(lines, failures),
            model_writer=model,
            pad_id=0, unk_id=1, bos_id=2, eos_id=3,
            pad_piece=pad, unk_piece=unk, bos_piece=cls, eos_piece=sep,
            control_symbols=[mask],
            character_coverage=1.0,
            max_sentence_length=4 * _LINE_CHARS,
            # A text with fewer pieces gives a smaller vocabulary, as for WordPiece.
            hard_vocab_limit=False,
            input_sentence_size=0,
            shuffle_input_sentence=False,
            num_threads=_THREADS,
            minloglevel=_SILENT,
            **options,
        )  # fmt: skip
    except RuntimeError as error:
        if failures:
            raise failures[0] from None
        raise UserError(
            f"SentencePiece could not train {size} ids on this text ({error}): change "
            "tokenizer.vocab_size or the input."
        ) from error
    return model.getvalue()


def _record_failure(lines: Iterable[str], failures: list[BaseException]) -> Iterator[str]:
    """Yield the lines, and record an exception, of which SentencePiece reports only the text."""
    try:
        yield from lines
    except BaseException as error:
        failures.append(error)
        raise


def _normalizer(spec: Any, turkish: bool) -> normalizers.Sequence:
    """Return SentencePiece's normaliser, with NFC and lower-casing before its table.

    `tokenizers` looks the table up by grapheme, and loses the combining marks of a replaced letter.
    So letters are composed and lower-cased first, and few are left to be replaced.
    """
    lower: list[normalizers.Normalizer] = turkish_capitals() if turkish else []
    if spec.name == _UNCASED:
        lower.append(normalizers.Lowercase())
    table = normalizers.Precompiled(spec.precompiled_charsmap)
    return normalizers.Sequence([normalizers.NFC(), *lower, table, *_single_spaces()])


def _single_spaces() -> list[normalizers.Normalizer]:
    # Not Strip, which removes all Unicode white space.
    ends, doubles = Regex(r"\A +| +\z"), Regex(" {2,}")
    return [normalizers.Replace(ends, ""), normalizers.Replace(doubles, " ")]


def _words() -> pre_tokenizers.Metaspace:
    return pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always", split=True)


def _unigram(proto: Any) -> models.Unigram:
    ordinary = [piece.score for piece in proto.pieces if piece.type == piece.NORMAL]
    # The model must not encode the text "[MASK]" as the special token: six letters score higher.
    never = max(map(len, SPECIAL_TOKENS)) * min(ordinary) - 1.0
    scores = [
        (piece.piece, piece.score if piece.type == piece.NORMAL else never)
        for piece in proto.pieces
    ]
    return models.Unigram(scores, unk_id=proto.trainer_spec.unk_id, byte_fallback=False)


def _bpe(proto: Any) -> models.BPE:
    """Return the BPE of a model, with every pair of pieces that joins to a piece as a merge.

    SentencePiece merges the pair that makes the best piece, wherever the pair is split.
    """
    ids = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    ordinary = [piece for piece in proto.pieces if piece.type == piece.NORMAL]
    known = {piece.piece for piece in ordinary}
    merges = [
        (text[:cut], text[cut:])
        for text in (piece.piece for piece in sorted(ordinary, key=lambda piece: -piece.score))
        for cut in range(1, len(text))
        if text[:cut] in known and text[cut:] in known
    ]
    unk = proto.trainer_spec.unk_piece
    return models.BPE(ids, merges, unk_token=unk, fuse_unk=True, byte_fallback=False)
