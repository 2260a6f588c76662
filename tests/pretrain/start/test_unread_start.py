"""A start that one node cannot read, as where HF_HOME is a folder of each node."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from data_prep.errors import UserError
from data_prep.tokenizers.folder import load_tokenizer
from pretrain import weights_file
from pretrain.distributed import Cluster
from pretrain.start.setup import continue_from_start
from tests.pretrain.start.test_setup import recipe


def test_unread_start_stops_all_ranks(
    published_teacher: Path, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    """Where rank 1 cannot read the weights, both ranks stop with a sentence that names HF_HOME."""
    folders = str(tmp_path), str(published_teacher), str(tiny_tokenizer)
    mp.spawn(start_on_two_ranks, args=folders, nprocs=2)  # type: ignore[no-untyped-call]
    first, second = ((tmp_path / f"rank_{rank}").read_text() for rank in range(2))
    assert first == second
    assert first.startswith(f"The weights {published_teacher / 'model.safetensors'} cannot be read")
    assert "(on rank 1, but not on rank 0)" in first and "the same HF_HOME" in first


def start_on_two_ranks(rank: int, folder: str, start: str, tokenizer: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )

    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("No such file or directory")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as refused:
        if rank == 1:
            patch.setattr(weights_file, "safe_open", missing)
        cluster = Cluster(rank, rank, 2)
        continue_from_start(recipe(Path(start)), load_tokenizer(Path(tokenizer)), cluster)
    Path(folder, f"rank_{rank}").write_text(str(refused.value))
    cluster.leave()
