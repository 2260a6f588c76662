"""Exports of every format and kind of tokenizer, published from runs with random weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from data_prep.tokenizers.folder import load_tokenizer, save_tokenizer
from data_prep.tokenizers.roles import ROBERTA_NAMES
from pretrain.export.huggingface import publish
from pretrain.model import BertShape
from tests.run_folders import make_run

# Name: kind of run, changes of the shape, whether its tokenizer is RoBERTa's kind.
FORMATS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "bert": ("teacher", {}, False),
    "bert-kept-pooler": ("student", {"pooler": True}, False),
    "bert-byte-level": ("student", {}, True),
    "distilbert": ("student", {"token_types": False}, False),
    "distilbert-byte-level": ("student", {"token_types": False, "positions": 40}, True),
    "megatron-bert": ("teacher", {"norm": "pre"}, False),
    "megatron-bert-no-pooler": ("student", {"norm": "pre"}, False),
}


def publish_format(folder: Path, name: str, tokenizer: Path, shape: BertShape) -> Path:
    """Publish a run of a format and return its export, `folder/name`.

    Args:
        folder: for the run, its tokenizer and the export.
        name: key of `FORMATS`.
        tokenizer: of BERT's kind.
        shape: that the format changes.
    """
    kind, changes, byte_level = FORMATS[name]
    if byte_level:
        tokenizer = folder / f"{name}-tokenizer"
        write_byte_level(tokenizer)
    vocab_size = load_tokenizer(tokenizer).vocab_size
    run = folder / f"{name}-run"
    make_run(run, tokenizer, kind, replace(shape, vocab_size=vocab_size, **changes))
    publish(run, folder / name, language="en")
    return folder / name


def write_byte_level(folder: Path) -> None:
    """Write a byte-level BPE with the special tokens of RoBERTa, and no vocab.txt."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(ROBERTA_NAMES.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["She looked out of the window."], trainer)
    ids = {name: tokenizer.token_to_id(name) for name in ("<s>", "</s>")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=list(ids.items())
    )
    save_tokenizer(tokenizer, folder, "existing", names=ROBERTA_NAMES)
