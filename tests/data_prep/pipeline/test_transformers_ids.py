"""The ids of a corpus are those that plain transformers gives from a published folder."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from data_prep.config.schema import CorpusRecipe
from data_prep.corpus.shards import Corpus
from data_prep.pipeline.build import build_corpus
from data_prep.tokenizers.sentencepiece import to_fast_tokenizer, train_sentencepiece
from tests.data_prep.tokenizers.foreign.conftest import ROBERTA, byte_level, wordpiece

# Documents of two paragraphs, of several sentences each, in the words of the fixtures and others.
DOCUMENTS = [
    f"The lantern of the Harbour is no. {number}. Café, naïve! \"Meadow?\" asked Ms. Quarry.\n"
    f"MEADOW meadow Meadow 漢字 quarry's 漢。字！ Saddles and {number} saddles… End. So (it) is."
    for number in range(40)
]  # fmt: skip


def bert(lower: bool, stated: bool) -> tuple[Tokenizer, dict[str, Any]]:
    """Return a BERT tokenizer, and a configuration that may disagree with it."""
    return wordpiece(lowercase=lower), {"tokenizer_class": "BertTokenizer", "do_lower_case": stated}


def sentencepiece() -> tuple[Tokenizer, dict[str, Any]]:
    """Return a SentencePiece tokenizer as another tool leaves it."""
    model = train_sentencepiece(
        lambda: DOCUMENTS, kind="unigram", vocab_size=120, lowercase=False, alphabet=80
    )
    return to_fast_tokenizer(model), {"tokenizer_class": "PreTrainedTokenizerFast"}


THEIRS: dict[str, Callable[[], tuple[Tokenizer, dict[str, Any]]]] = {
    "cased": lambda: bert(False, False),
    "uncased": lambda: bert(True, True),
    "overridden": lambda: bert(True, False),
    "roberta": lambda: (byte_level(), ROBERTA),
    "sentencepiece": sentencepiece,
}


def make_options(name: str, folder: Path) -> dict[str, Any]:
    """Return the tokenizer options of a case; a folder of another tool is written first."""
    if name not in THEIRS:
        kind, _, casing = name.partition("-")
        lowercase = {"turkish": "turkish", "cased": False}.get(casing, True)
        return {"kind": kind, "vocab_size": 150, "lowercase": lowercase}
    tokenizer, config = THEIRS[name]()
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return {"vocabulary": folder}


@pytest.mark.parametrize(
    "name",
    [
        "wordpiece", "wordpiece-cased", "wordpiece-turkish", "unigram", "unigram-turkish", "bpe",
        "bpe-cased", *THEIRS,
    ],
)  # fmt: skip
def test_corpus_has_ids_of_transformers(
    name: str, tmp_path: Path, recipe_for: Callable[..., CorpusRecipe]
) -> None:
    """Every document has the ids that `AutoTokenizer` gives its paragraphs."""
    (tmp_path / "text.jsonl").write_text(
        "".join(json.dumps({"text": document}) + "\n" for document in DOCUMENTS)
    )
    options = make_options(name, tmp_path / "theirs")
    recipe = recipe_for(
        tmp_path / "text.jsonl", **{f"tokenizer__{key}": value for key, value in options.items()}
    )
    build_corpus(recipe)
    # The folder of a published model has a config.json, and no manifest.
    published = tmp_path / "published"
    shutil.copytree(recipe.tokenizer.path, published)
    (published / "manifest.json").unlink()
    (published / "config.json").write_text('{"model_type": "bert"}')
    plain = AutoTokenizer.from_pretrained(published)
    expected = Counter(
        tuple(
            index
            for paragraph in document.split("\n")
            for index in plain(paragraph, add_special_tokens=False)["input_ids"]
        )
        for document in DOCUMENTS
    )
    found: Counter[tuple[int, ...]] = Counter()
    for split in ("train", "validation"):
        corpus = Corpus.open(recipe.corpus.path, split)
        for index in range(corpus.num_documents):
            sentences = corpus.document(index)
            found[tuple(token for sentence in sentences for token in sentence.tolist())] += 1
    assert found == expected
