"""A teacher sharded over two real ranks gives the outputs of a whole one.

Both run in the same process, so that only the placement of the weights differs.
"""

import dataclasses
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from data_prep.errors import UserError
from pretrain.data.batch import Batch
from pretrain.data.dummy_batch import dummy_batch
from pretrain.distil.teacher import Teacher
from pretrain.kernels.dispatch import choose_kernels
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.backend import Backend
from pretrain.model.captured_states import Capture, States
from pretrain.model.compilation import CompilationCounter, compile_layers

pytestmark = pytest.mark.story
CPU = torch.device("cpu")
SHAPE = BertShape(
    vocab_size=201,
    layers=24,
    width=32,
    heads=4,
    feed_forward=64,
    positions=64,
    dropout=0.0,
    pad_id=0,
    next_sentence=True,
)
CAPTURE = Capture(hidden=frozenset({0, 5, 24}), attention=frozenset({3}))
LOW_CAPTURE = Capture(hidden=frozenset({2}))
Tensors = list[torch.Tensor]
Case = Callable[[bool, Batch], Tensors]
Found = list[dict[str, Any]]  # results by rank


def make_model(seed: int = 5, **changes: Any) -> Bert:
    """Return a model with weights so large that its outputs differ everywhere."""
    model = Bert(dataclasses.replace(SHAPE, **changes))
    initialise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def fsdp_state_sizes(teacher: Teacher) -> list[int]:
    """Return the size of FSDP's state after each of three rounds of forward passes."""
    encoder: Any = teacher._model.bert.encoder
    batch, found = dummy_batch(SHAPE.vocab_size, 2, 16), []
    for _ in range(3):
        teacher(batch)
        teacher.states(batch, LOW_CAPTURE)
        state = encoder._get_fsdp_state()
        groups = [g for layer in state._state_ctx.all_states for g in layer._fsdp_param_groups]
        order = len(state._comm_ctx.post_forward_order)
        found.append(order + sum(len(group._post_forward_indices) for group in groups))
    return found


def make_teacher(sharded: bool, model: Bert, precision: str = "fp32", **options: Any) -> Teacher:
    return Teacher(model, CPU, precision, sharded=sharded, **options)


def tensors(states: States) -> Tensors:
    return [*states.hidden.values(), *(x for layer in states.attention.values() for x in layer)]


def logits_and_states(teacher: Teacher, batch: Batch) -> Tensors:
    outputs = teacher(batch, CAPTURE)
    assert outputs.nsp_logits_S2 is not None
    transformed = outputs.transform(outputs.hidden_ND)  # as soft targets at all tokens do
    return [outputs.mlm_logits_MV, outputs.nsp_logits_S2, transformed, *tensors(outputs.states)]


def post_norm(sharded: bool, batch: Batch) -> Tensors:
    return logits_and_states(make_teacher(sharded, make_model()), batch)


def pre_norm(sharded: bool, batch: Batch) -> Tensors:
    return logits_and_states(make_teacher(sharded, make_model(norm="pre")), batch)


def bf16(sharded: bool, batch: Batch) -> Tensors:
    return logits_and_states(make_teacher(sharded, make_model(), "bf16"), batch)


def truncated(sharded: bool, batch: Batch) -> Tensors:
    teacher = make_teacher(sharded, make_model(), layers=5)
    # Stages capture different layers; the others must not be gathered.
    captures = [LOW_CAPTURE, Capture(), Capture(hidden=frozenset({5}))]
    return [x for capture in captures for x in tensors(teacher.states(batch, capture))]


def embeddings_alone(sharded: bool, batch: Batch) -> Tensors:
    teacher = make_teacher(sharded, make_model(), layers=0)
    return tensors(teacher.states(batch, Capture(hidden=frozenset({0}))))


def two_in_turns(sharded: bool, batch: Batch) -> Tensors:
    several = [make_teacher(sharded, make_model(seed, layers=3)) for seed in (5, 6)]
    return [each(batch).mlm_logits_MV for _ in range(2) for each in several]


def triton(sharded: bool, batch: Batch) -> Tensors:
    backend = Backend(kernels=choose_kernels("triton", "triton", CPU))
    teacher = make_teacher(sharded, make_model(layers=2), backend=backend)
    return [teacher(batch).mlm_logits_MV]


def compiled(sharded: bool, batch: Batch) -> Tensors:
    torch.compiler.reset()
    teacher = make_teacher(sharded, make_model())
    compile_layers(teacher._model, backend="aot_eager")
    compilations = CompilationCounter()
    outputs = logits_and_states(teacher, batch)
    assert compilations.since_last() == 2, "one graph for captured layers, one for the others"
    outputs += logits_and_states(teacher, batch)
    assert compilations.since_last() == 0
    return outputs


CASES: list[Case] = [
    post_norm, pre_norm, bf16, truncated, embeddings_alone, two_in_turns, triton, compiled
]  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return the results of two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(run_on_two_ranks, args=(str(folder),), nprocs=2)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"rank_{rank}.pt") for rank in range(2)]


def run_on_two_ranks(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    # Rank 1 has other rows, without masked tokens.
    batch = dummy_batch(
        SHAPE.vocab_size, rows=4 - rank, row_tokens=32, masked_tokens=20 * (1 - rank)
    )
    facts: dict[str, Any] = {
        "bytes": [
            parameter_bytes(make_teacher(sharded, make_model())) for sharded in (True, False)
        ],
        "peak": peak_and_estimate(),
        "fsdp_state": fsdp_state_sizes(make_teacher(True, make_model())),
        "check": [checked(make_model()), checked(with_a_nan(make_model()))],
    }
    facts |= {case.__name__: (case(True, batch), case(False, batch)) for case in CASES}
    torch.save(facts, Path(folder) / f"rank_{rank}.pt")
    dist.destroy_process_group()


def parameter_bytes(teacher: Teacher) -> int:
    """Return the bytes of a teacher's parameters after a forward pass."""
    teacher(dummy_batch(SHAPE.vocab_size, 2, 16))
    parts = (getattr(p, "_local_tensor", p) for p in teacher._model.parameters())
    return sum(part.untyped_storage().nbytes() for part in parts)


def peak_and_estimate() -> tuple[int, int]:
    """Return the bytes in memory while a layer is computed, and their estimate."""
    shape = {"layers": 4, "width": 128, "feed_forward": 512}
    others = storages()  # kept alive, so that no address of theirs is reused
    known = {storage.data_ptr() for storage in others}
    teacher = make_teacher(True, make_model(**shape))
    measured: list[int] = []

    def measure(*_: Any) -> None:
        new = {s.data_ptr(): s.nbytes() for s in storages() if s.data_ptr() not in known}
        measured.append(sum(new.values()))

    for layer in teacher._model.bert.encoder.layer:
        layer.register_forward_pre_hook(measure)
    teacher(dummy_batch(teacher.shape.vocab_size, 1, 8, masked_tokens=1))
    assert len(measured) == 4
    return max(measured), 4 * teacher.peak_parameters


def storages() -> list[torch.UntypedStorage]:
    gc.collect()
    tensors = [x for x in gc.get_objects() if isinstance(x, torch.Tensor)]
    plain = [getattr(x, "_local_tensor", x) for x in tensors]
    return [x.untyped_storage() for x in plain]


def with_a_nan(model: Bert) -> Bert:
    # In the last row, which is in the shard of rank 1.
    model.bert.encoder.layer[7].output.dense.weight.data[-1, 0] = float("nan")
    return model


def checked(model: Bert) -> str:
    """Return the error of a sharded teacher's check, or `sound`."""
    try:
        make_teacher(True, model).check(
            dummy_batch(SHAPE.vocab_size, 2, 16), CAPTURE, needs_logits=True
        )
    except UserError as error:
        return str(error)
    return "sound"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_sharded_outputs_equal_whole_bitwise(found: Found, case: Case) -> None:
    """A sharded teacher gives the same outputs as a whole one, bit for bit."""
    for rank, facts in enumerate(found):
        sharded, whole = facts[case.__name__]
        assert len(sharded) == len(whole) > 0
        for one, other in zip(sharded, whole, strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other), rank
    # Each rank had its own rows, one of them without masked tokens.
    assert found[0][case.__name__][0][-1].shape != found[1][case.__name__][0][-1].shape


def test_fsdp_state_does_not_grow(found: Found) -> None:
    """FSDP's cached state for a backward pass is discarded after every forward pass."""
    for facts in found:
        assert facts["fsdp_state"] == [0, 0, 0]


def test_each_rank_keeps_half_of_layers(found: Found) -> None:
    """Two ranks keep half of the layers each, and the embeddings and heads as a whole."""
    model = make_model()
    layers = 4 * sum(p.numel() for p in model.bert.encoder.parameters())
    total = 4 * model.count_parameters()
    for facts in found:
        sharded, whole = facts["bytes"]
        assert whole == total
        assert sharded == total - layers // 2
        assert sharded < 0.55 * whole


def test_peak_parameters_match_memory(found: Found) -> None:
    """The peak number of parameters is that of the device memory while a layer is computed."""
    for facts in found:
        peak, estimate = facts["peak"]
        # The rest is a batch of 8 tokens.
        assert estimate <= peak < 1.02 * estimate


def test_nan_shard_refused_on_all_ranks(found: Found) -> None:
    """A NaN in the shard of one rank is refused on all of them."""
    for facts in found:
        sound, refused = facts["check"]
        assert sound == "sound"
        assert "has NaN" in refused and "layer.7.output.dense.weight" in refused
