"""WordPiece tokenizers: trained on text, or made from a given vocab.txt."""

from collections.abc import Callable, Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import WordPieceTrainer

from data_prep.errors import UserError
from data_prep.tokenizers.alphabet import count_characters, most_frequent
from data_prep.tokenizers.folder import SPECIAL_TOKENS, add_bert_roles

_CONTINUES = "##"
_MIN_WORD_COUNT = 2


def train_wordpiece(
    texts: Callable[[], Iterable[str]], *, vocab_size: int, lowercase: bool, alphabet: int
) -> Tokenizer:
    """Train BERT's tokenizer; the same texts give the same ids, in any process.

    Args:
        texts: returns an iterator over the training texts; called twice, so that they need not fit
            in memory.
        vocab_size: ids to reach; a small sample may give fewer.
        lowercase: whether case and accents are dropped.
        alphabet: how many characters to keep; rarer ones become [UNK].

    Returns:
        a tokenizer whose ids 0-4 are [PAD] [UNK] [CLS] [SEP] [MASK].

    Raises:
        UserError: when the vocabulary cannot hold the alphabet.
    """
    blank = bert_tokenizer({token: index for index, token in enumerate(SPECIAL_TOKENS)}, lowercase)
    characters = _frequent_characters(texts(), blank, alphabet)
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
    blank.train_from_iterator(texts(), trainer)
    return bert_tokenizer(blank.get_vocab(with_added_tokens=True), lowercase)


def read_vocabulary(path: Path, lowercase: bool) -> Tokenizer:
    """Make BERT's tokenizer from a vocab.txt: one token a line, its line number is its id.

    Raises:
        UserError: when the file is missing, repeats a token, or lacks a special token.
    """
    if path.is_dir():
        raise UserError(
            f"The vocabulary {path} is a folder: give its vocab.txt, or use the whole "
            "tokenizer with tokenizer.kind=existing."
        )
    if not path.is_file():
        raise UserError(f"There is no vocabulary {path}: correct tokenizer.vocabulary.")
    tokens = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    vocabulary: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if (first := vocabulary.setdefault(token, index)) != index:
            raise UserError(
                f"{path} has the token {token!r} on lines {first + 1} and {index + 1}: remove one."
            )
    if len(vocabulary) <= len(SPECIAL_TOKENS):
        raise UserError(
            f"The vocabulary {path} has {len(vocabulary)} tokens, which leaves none for text "
            f"beside {', '.join(SPECIAL_TOKENS)}: give a whole vocabulary."
        )
    if missing := [token for token in SPECIAL_TOKENS if token not in vocabulary]:
        raise UserError(f"The vocabulary {path} has no {', '.join(missing)}: add a line for each.")
    return bert_tokenizer(vocabulary, lowercase)


def bert_tokenizer(vocabulary: dict[str, int], lowercase: bool) -> Tokenizer:
    """Return BERT's pipeline with a vocabulary, equal to that of transformers' BertTokenizer."""
    model = models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix=_CONTINUES)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUES, cleanup=True)
    add_bert_roles(tokenizer)
    return tokenizer


def _frequent_characters(texts: Iterable[str], blank: Tokenizer, limit: int) -> list[str]:
    """Return the most frequent characters after normalisation, in code point order."""
    counts: dict[str, int] = {}
    for character, count in count_characters(texts).items():
        # Normalisation is per character, so one of each is enough.
        for word in blank.normalizer.normalize_str(character).split():
            for part in word:
                counts[part] = counts.get(part, 0) + count
    return most_frequent(counts, limit)


def _continues_words(character: str, blank: Tokenizer) -> bool:
    """Tell whether a character can stand inside a word; punctuation and ideographs cannot."""
    normalized = blank.normalizer.normalize_str(f"a{character}a")
    return len(blank.pre_tokenizer.pre_tokenize_str(normalized)) == 1
