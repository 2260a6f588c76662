"""The sides of the preparation benchmark, each run as a process of its own.

    python -m launch.benchmarks.prep_sides SIDE FOLDER

reads FOLDER/job.json and leaves FOLDER/result.json: the tokens it made, without special ones, and
the seconds from the end of its imports to the end of its work.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from launch.benchmarks.processes import write_result

Job = Mapping[str, Any]

BARE, OURS, STAGES = "limit/bare_tokenizer", "ours/prepare_data", "ours/stages"
MAP, MAP_FAST = "peer/datasets_map", "peer/datasets_map_fast"

# Sentences of one call: enough for every thread, few enough that encodings do not pile up.
_SENTENCES_A_CALL = 8192
STAGE_NAMES = ("reading", "cleaning", "sentences_and_ids", "writing")


def main() -> None:
    """Run the side that the command line names."""
    name, work = sys.argv[1], Path(sys.argv[2])
    job = json.loads((work / "job.json").read_text(encoding="utf-8"))
    SIDES[name](job, work)


def _bare_tokenizer(job: Job, work: Path) -> None:
    """Tokenize sentences that are already cut and in memory, with as many threads as workers."""
    from tokenizers import Tokenizer

    from launch.benchmarks.stages import split_texts

    tokenizer = Tokenizer.from_file(str(Path(job["tokenizer"], "tokenizer.json")))
    tokenizer.encode_special_tokens = True
    texts = [text for part in _parts(job) for text in _texts_of(part)]
    sentences = [sentence for text in split_texts(texts, job["language"]) for sentence in text]
    del texts
    tokens = 0
    started = time.perf_counter()
    for start in range(0, len(sentences), _SENTENCES_A_CALL):
        batch = sentences[start : start + _SENTENCES_A_CALL]
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        tokens += sum(map(len, encodings))
    write_result(work, tokens=tokens, seconds=time.perf_counter() - started)


def _prepare_data(job: Job, work: Path) -> None:
    """Run the command that a person types, on a tokenizer that is ready."""
    from launch import prepare_data

    corpus = work / "corpus"
    options = [f"workers={job['workers']}", f"corpus.path={corpus}"]
    sys.argv = ["prepare_data.py", "--config", job["recipe"], *options]
    started = time.perf_counter()
    prepare_data.main()
    seconds = time.perf_counter() - started
    splits = json.loads((corpus / "manifest.json").read_text(encoding="utf-8"))["splits"]
    tokens = sum(split["tokens"] for split in splits.values())
    write_result(work, tokens=tokens, seconds=seconds)


def _stages(job: Job, work: Path) -> None:
    """Take the stages in turn, batch by batch, in one process, and time each of them."""
    from data_prep.config.loader import load_recipe
    from data_prep.config.schema import CorpusRecipe
    from launch.benchmarks.stages import Stages

    recipe = load_recipe(CorpusRecipe, Path(job["recipe"]))
    seconds = dict.fromkeys(STAGE_NAMES, 0.0)
    tokens = 0
    with Stages(recipe, work) as stages:
        batches = stages.read()
        while True:
            clock = [time.perf_counter()]
            texts = next(batches, None)
            clock.append(time.perf_counter())
            if texts is None:
                break
            kept = stages.clean(texts)
            clock.append(time.perf_counter())
            encoded = stages.encode(kept)
            clock.append(time.perf_counter())
            stages.write(encoded)
            clock.append(time.perf_counter())
            tokens += len(encoded.tokens)
            for stage, (before, after) in zip(STAGE_NAMES, pairwise(clock), strict=True):
                seconds[stage] += after - before
    write_result(work, tokens=tokens, seconds=sum(seconds.values()), stages=seconds)


def _datasets_map(job: Job, work: Path) -> None:
    """Read, split and tokenize with `datasets`, by the tokenizer class that its guides use."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["tokenizer"])

    def encode(sentences: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(
            list(sentences),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return ids

    _map_corpus(job, work, encode)


def _datasets_map_fast(job: Job, work: Path) -> None:
    """Do the same by the fastest call there is, the one of the bare tokenizer."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(job["tokenizer"], "tokenizer.json")))

    def encode(sentences: Sequence[str]) -> list[list[int]]:
        encodings = tokenizer.encode_batch_fast(sentences, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    _map_corpus(job, work, encode)


def _map_corpus(job: Job, work: Path, encode: Callable[[Sequence[str]], list[list[int]]]) -> None:
    """Make an Arrow table of documents, sentences and ids; nothing is left out or cleaned."""
    import datasets
    import pyarrow.compute as pc

    from launch.benchmarks.stages import split_texts

    datasets.disable_progress_bars()

    def documents_of(batch: Mapping[str, list[str]]) -> dict[str, list[list[list[int]]]]:
        texts = split_texts(batch["text"], job["language"])
        ids = iter(encode([sentence for text in texts for sentence in text]))
        return {"input_ids": [[next(ids) for _ in text] for text in texts]}

    parts = [str(part) for part in _parts(job)]
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
    write_result(work, tokens=pc.sum(lengths).as_py() or 0, seconds=seconds)


def _parts(job: Job) -> list[Path]:
    return sorted(Path(job["text"]).iterdir())


def _texts_of(part: Path) -> Iterator[str]:
    with part.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


SIDES: Mapping[str, Callable[[Job, Path], None]] = {
    BARE: _bare_tokenizer,
    OURS: _prepare_data,
    STAGES: _stages,
    MAP: _datasets_map,
    MAP_FAST: _datasets_map_fast,
}


def variables_of(name: str, workers: int) -> dict[str, str]:
    """Return the environment of a side: threads for the bare tokenizer, processes for the rest."""
    threads = name == BARE and workers > 1
    return {
        "TOKENIZERS_PARALLELISM": "true" if threads else "false",
        "RAYON_NUM_THREADS": str(workers if threads else 1),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }


if __name__ == "__main__":
    main()
