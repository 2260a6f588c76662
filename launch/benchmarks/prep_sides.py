"""The sides of the preparation benchmark; each is called in a fresh process.

They return the `tokens` that they made, without special ones, and the `seconds` from the end of
their imports to the end of their work.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

Job = Mapping[str, Any]

BARE, OURS, STAGES = "limit/bare_tokenizer", "ours/prepare_data", "ours/stages"
NANOTOKEN = "limit/nanotoken"  # of a WordPiece alone
MAP, MAP_FAST = "peer/datasets_map", "peer/datasets_map_fast"
STAGE_NAMES = ("reading", "cleaning", "sentences_and_ids", "writing")

# Sentences of one call: enough for every thread, few enough that encodings do not pile up.
_SENTENCES_A_CALL = 8192


def _bare_tokenizer(job: Job, work: Path) -> dict[str, Any]:
    """Tokenize sentences that are already cut and in memory, with as many threads as workers."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(job["tokenizer"], "tokenizer.json")))
    tokenizer.encode_special_tokens = True

    def count(batch: Sequence[str]) -> int:
        return sum(map(len, tokenizer.encode_batch_fast(batch, add_special_tokens=False)))

    return _count_tokens(job, count)


def _nanotoken(job: Job, work: Path) -> dict[str, Any]:
    """Do the same by the library that computes our ids, alone, with as many threads."""
    from nanotoken import Tokenizer

    tokenizer = Tokenizer(str(Path(job["tokenizer"], "tokenizer.json")))

    def count(batch: Sequence[str]) -> int:
        parallel = job["workers"] > 1
        found = tokenizer.encode_batch(batch, add_special_tokens=False, parallel=parallel)
        return int(found.num_tokens)

    return _count_tokens(job, count)


def _count_tokens(job: Job, count: Callable[[Sequence[str]], int]) -> dict[str, Any]:
    """Count the tokens of all sentences, which are cut before the clock starts."""
    texts = [
        json.loads(line)["text"]
        for part in sorted(Path(job["text"]).iterdir())
        for line in part.open(encoding="utf-8")
    ]
    sentences = [sentence for text in _split(texts, job) for sentence in text]
    del texts
    started = time.perf_counter()
    starts = range(0, len(sentences), _SENTENCES_A_CALL)
    tokens = sum(count(sentences[start : start + _SENTENCES_A_CALL]) for start in starts)
    return {"tokens": tokens, "seconds": time.perf_counter() - started}


def _prepare_data(job: Job, work: Path) -> dict[str, Any]:
    """Run the command that a person types, on a tokenizer that is ready."""
    from launch import prepare_data

    options = [f"workers={job['workers']}", f"corpus.path={work / 'corpus'}"]
    sys.argv = ["prepare_data.py", "--config", job["recipe"], *options]
    started = time.perf_counter()
    prepare_data.main()
    seconds = time.perf_counter() - started
    manifest = json.loads((work / "corpus" / "manifest.json").read_text(encoding="utf-8"))
    tokens = sum(split["tokens"] for split in manifest["splits"].values())
    return {"tokens": tokens, "seconds": seconds}


def _stages(job: Job, work: Path) -> dict[str, Any]:
    """Run the pipeline's tasks in this process, with a clock around the functions of a stage.

    `writing` is all that is neither reading, cleaning nor tokenizing: keys, splits, shards.
    """
    from data_prep.config.loader import load_recipe
    from data_prep.config.schema import CorpusRecipe
    from data_prep.filters.cleaning import Cleaner
    from data_prep.pipeline import task as pipeline
    from data_prep.readers.listing import cut_into_tasks, list_sources
    from data_prep.tokenize.encoder import TextEncoder

    recipe = load_recipe(CorpusRecipe, Path(job["recipe"]))
    runner = pipeline.TaskRunner(recipe, work)
    tasks = cut_into_tasks(list_sources(recipe.corpora))
    clock = dict.fromkeys(STAGE_NAMES, 0.0)
    with (
        _timed(clock, "reading", pipeline, "read_documents"),
        _timed(clock, "cleaning", Cleaner, "clean"),
        _timed(clock, "cleaning", Cleaner, "reason_to_drop"),
        _timed(clock, "sentences_and_ids", TextEncoder, "encode"),
    ):
        started = time.perf_counter()
        done = [runner.run(pipeline.Task(index=i, slices=s)) for i, s in enumerate(tasks)]
        seconds = time.perf_counter() - started
    stages = {**clock, "writing": seconds - sum(clock.values())}
    shards = [shard for result in done for part in result.parts for shard in part.shards.values()]
    return {"tokens": sum(s.tokens for s in shards), "seconds": seconds, "stages": stages}


def _timed(clock: dict[str, float], stage: str, owner: Any, name: str) -> Any:
    """Return a patch that adds the seconds of a function, or of its iterator, to a stage."""
    function = getattr(owner, name)

    def count(call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        try:
            return call()
        finally:
            clock[stage] += time.perf_counter() - started

    def iterate(items: Iterator[Any]) -> Iterator[Any]:
        end = object()
        while (item := count(lambda: next(items, end))) is not end:
            yield item

    def timed(*arguments: Any, **options: Any) -> Any:
        made = count(lambda: function(*arguments, **options))
        return iterate(made) if isinstance(made, Iterator) else made

    return mock.patch.object(owner, name, timed)


def _datasets_map(job: Job, work: Path) -> dict[str, Any]:
    """Read, split and tokenize with `datasets`, by the tokenizer class that its guides use."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["tokenizer"])
    options = {
        "add_special_tokens": False,
        "return_attention_mask": False,
        "return_token_type_ids": False,
        "verbose": False,
    }

    def encode(sentences: Sequence[str]) -> list[list[int]]:
        return list(tokenizer(list(sentences), **options)["input_ids"])

    return _map_corpus(job, work, encode)


def _datasets_map_fast(job: Job, work: Path) -> dict[str, Any]:
    """Do the same by the fastest call there is, the one of the bare tokenizer."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(job["tokenizer"], "tokenizer.json")))

    def encode(sentences: Sequence[str]) -> list[list[int]]:
        encodings = tokenizer.encode_batch_fast(sentences, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    return _map_corpus(job, work, encode)


def _map_corpus(
    job: Job, work: Path, encode: Callable[[Sequence[str]], list[list[int]]]
) -> dict[str, Any]:
    """Make an Arrow table of documents, sentences and ids; nothing is left out or cleaned."""
    import datasets
    import pyarrow.compute as pc

    datasets.disable_progress_bars()

    def documents_of(batch: Mapping[str, list[str]]) -> dict[str, list[list[list[int]]]]:
        texts = _split(batch["text"], job)
        ids = iter(encode([sentence for text in texts for sentence in text]))
        return {"input_ids": [[next(ids) for _ in text] for text in texts]}

    parts = [str(part) for part in sorted(Path(job["text"]).iterdir())]
    processes = job["workers"] if job["workers"] > 1 else None
    readers = min(job["workers"], len(parts))
    started = time.perf_counter()
    read = datasets.load_dataset(
        "json",
        data_files=parts,
        split="train",
        cache_dir=str(work / "cache"),
        num_proc=readers if readers > 1 else None,
    )
    made = read.map(
        documents_of,
        batched=True,
        num_proc=processes,
        remove_columns=["text"],
        load_from_cache_file=False,
    )
    seconds = time.perf_counter() - started
    lengths = pc.list_value_length(pc.list_flatten(made.data.column("input_ids")))
    return {"tokens": pc.sum(lengths).as_py() or 0, "seconds": seconds}


def _split(texts: Sequence[str], job: Job) -> list[list[str]]:
    """Return the sentences of each text; all sides split by this rule."""
    from data_prep.tokenize.sentence_rules import split_sentences

    return [split_sentences(text, job["language"]) for text in texts]


SIDES: Mapping[str, Callable[[Job, Path], dict[str, Any]]] = {
    BARE: _bare_tokenizer,
    NANOTOKEN: _nanotoken,
    OURS: _prepare_data,
    MAP: _datasets_map,
    MAP_FAST: _datasets_map_fast,
    STAGES: _stages,
}
