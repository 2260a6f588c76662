"""The group `tokenizer` of a corpus recipe."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from data_prep.config.loader import Options


class TokenizerOptions(Options):
    """Which tokenizer to use, and how to train it when it does not exist yet."""

    path: Path = Field(
        description="The tokenizer's folder: used when it exists, made when it does not."
    )
    kind: Literal["wordpiece", "unigram", "bpe", "existing"] = Field(
        "wordpiece",
        description="What is trained: `wordpiece`, or SentencePiece's `unigram` or `bpe`. With "
        "`vocabulary` nothing is trained and this may be left out, or be `existing`.",
    )
    vocab_size: int = Field(
        16_384,
        ge=6,
        description="Ids. A student's embedding is vocab_size x width, so small for a small "
        "corpus.",
    )
    lowercase: bool | Literal["turkish"] = Field(
        True,
        description="Whether case is dropped: smaller vocabulary, better on little data. `turkish` "
        "lower-cases I to dotless ı, and İ to i. A tokenizer folder keeps its own casing.",
    )
    strip_accents: bool | None = Field(
        None,
        description="Whether WordPiece drops accents, which in Hindi or Thai are vowels; null: "
        "where `lowercase` is true, as in BERT. SentencePiece keeps them.",
    )
    alphabet: int = Field(
        1_000,
        ge=1,
        description="The most frequent characters to keep; rarer ones become [UNK]. 1,000 covers "
        "spaced scripts and leaves the ids to words; Chinese needs about 8,000.",
    )
    vocabulary: Path | None = Field(
        None,
        description="A tokenizer to take over with its ids: a vocab.txt, a tokenizer.json, or the "
        "folder of a Hugging Face tokenizer of any algorithm, or the name of a model of the hub.",
    )
    train_bytes: int = Field(
        100_000_000,
        ge=1,
        description="Bytes of input to train on, taken evenly over the files: more hardly changes "
        "30,000 ids.",
    )

    backend: Literal["auto", "tokenizers"] = Field(
        "auto",
        description="What computes ids: `auto` is nanotoken or kitoken where they are installed "
        "and serve, several times faster and compared with `tokenizers` in every task.",
    )

    @model_validator(mode="after")
    def _existing_has_vocabulary(self) -> "TokenizerOptions":
        if self.kind == "existing" and self.vocabulary is None:
            raise ValueError("kind 'existing' needs tokenizer.vocabulary, a tokenizer folder.")
        return self

    @model_validator(mode="after")
    def _sentencepiece_keeps_accents(self) -> "TokenizerOptions":
        if self.strip_accents and self.kind in ("unigram", "bpe"):
            raise ValueError(
                f"strip_accents is for kind wordpiece, and {self.kind} keeps accents: leave it out."
            )
        return self
