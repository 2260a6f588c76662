"""WordPiece tokenizers: trained on text, or made from a given vocab.txt."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import WordPieceTrainer

from data_prep.errors import UserError
from data_prep.tokenizers.alphabet import count_characters, most_frequent
from data_prep.tokenizers.casing import Lowercase, bert_normalizer, check_stripped_marks
from data_prep.tokenizers.foreign.vocabulary_file import (
    check_bert_vocabulary,
    read_vocabulary_file,
    warn_of_casing,
)
from data_prep.tokenizers.roles import SPECIAL_TOKENS, add_bert_roles
from data_prep.tokenizers.training_text import TrainingText

_CONTINUES = "##"
_MIN_WORD_COUNT = 2


def train_wordpiece(
    texts: Callable[[], Iterable[str]],
    *,
    vocab_size: int,
    lowercase: Lowercase,
    alphabet: int,
    strip_accents: bool | None = None,
) -> Tokenizer:
    """Train BERT's tokenizer; the same texts give the same ids, in any process.

    Words of more than 100 characters are left out and counted: they can only become [UNK].

    Args:
        texts: returns an iterator over the training texts; called twice, so that they need not fit
            in memory.
        vocab_size: ids to reach; a small sample may give fewer.
        lowercase: whether case is dropped, and by which rule.
        alphabet: how many characters to keep; rarer ones become [UNK].
        strip_accents: whether accents are dropped; None is: where `lowercase` is true.

    Returns:
        a tokenizer whose ids 0-4 are [PAD] [UNK] [CLS] [SEP] [MASK].

    Raises:
        UserError: when the vocabulary cannot hold the alphabet, and when vowel signs would be
            dropped as accents.
    """
    special = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    blank = bert_tokenizer(special, lowercase, strip_accents)
    text = TrainingText(texts, blank.normalizer.normalize_str)
    counts = count_characters(text.pieces())
    text.report()
    check_stripped_marks(counts, lowercase, strip_accents)
    characters = most_frequent(_normalized_counts(counts, blank), alphabet)
    # The library numbers continuations in the order of a hash table that differs in every
    # process, and breaks ties between merges by these numbers. Listing them first fixes both.
    continuations = [_CONTINUES + c for c in characters if _continues_words(c, blank)]
    fixed = len(SPECIAL_TOKENS) + len(continuations) + len(characters)
    if fixed >= vocab_size:
        raise UserError(
            f"tokenizer.vocab_size {vocab_size} is too small for {len(characters)} characters, "
            f"which alone take {fixed} ids: raise it, or lower tokenizer.alphabet."
        )
    trainer = WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_WORD_COUNT,
        special_tokens=[*SPECIAL_TOKENS, *continuations],
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        continuing_subword_prefix=_CONTINUES,
        show_progress=False,
    )
    blank.train_from_iterator(text.pieces(), trainer)
    vocabulary = blank.get_vocab(with_added_tokens=True)
    return bert_tokenizer(vocabulary, lowercase, strip_accents)


def read_vocabulary(
    path: Path, lowercase: Lowercase, strip_accents: bool | None = None
) -> Tokenizer:
    """Make BERT's tokenizer from a vocab.txt: one token a line, its line number is its id.

    Raises:
        UserError: when the file is missing, is not UTF-8, or lacks a special token.
    """
    vocabulary = read_vocabulary_file(path)
    check_bert_vocabulary(path, vocabulary)
    warn_of_casing(path, vocabulary, lowercase, strip_accents)
    return bert_tokenizer(vocabulary, lowercase, strip_accents)


def bert_tokenizer(
    vocabulary: dict[str, int], lowercase: Lowercase, strip_accents: bool | None = None
) -> Tokenizer:
    """Return BERT's pipeline with a vocabulary, equal to that of transformers' BertTokenizer."""
    model = models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix=_CONTINUES)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = bert_normalizer(lowercase, strip_accents)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUES, cleanup=True)
    add_bert_roles(tokenizer)
    return tokenizer


def _normalized_counts(counts: Mapping[str, int], blank: Tokenizer) -> dict[str, int]:
    """Return how often each character occurs after normalisation."""
    normalized: dict[str, int] = {}
    for character, count in counts.items():
        # Normalisation is per character, so one of each is enough.
        for word in blank.normalizer.normalize_str(character).split():
            for part in word:
                normalized[part] = normalized.get(part, 0) + count
    return normalized


def _continues_words(character: str, blank: Tokenizer) -> bool:
    """Tell whether a character can stand inside a word; punctuation and ideographs cannot."""
    normalized = blank.normalizer.normalize_str(f"a{character}a")
    return len(blank.pre_tokenizer.pre_tokenize_str(normalized)) == 1
