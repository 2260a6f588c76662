"""A teacher whose layers are shared out among two real ranks answers as one that is whole.

Both answer in the same process, so that nothing but the place of the weights differs.
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
ASKED = Capture(hidden=frozenset({0, 5, 24}), attention=frozenset({3}))
FEW = Capture(hidden=frozenset({2}))
Answers = list[torch.Tensor]
Case = Callable[[bool, Batch], Answers]
Found = list[dict[str, Any]]  # by rank


def model(seed: int = 5, **changes: Any) -> Bert:
    """Return a model with weights so large that its outputs differ everywhere."""
    made = Bert(dataclasses.replace(SHAPE, **changes))
    initialise(made, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return made


def notes_after_questions(asked: Teacher) -> list[int]:
    """Return how much FSDP has noted of forward passes, after each of three rounds."""
    encoder: Any = asked._model.bert.encoder
    batch, found = dummy_batch(SHAPE.vocab_size, 2, 16), []
    for _ in range(3):
        asked(batch)
        asked.states(batch, FEW)
        state = encoder._get_fsdp_state()
        groups = [g for layer in state._state_ctx.all_states for g in layer._fsdp_param_groups]
        order = len(state._comm_ctx.post_forward_order)
        found.append(order + sum(len(group._post_forward_indices) for group in groups))
    return found


def teacher(sharded: bool, made: Bert, precision: str = "fp32", **options: Any) -> Teacher:
    return Teacher(made, CPU, precision, sharded=sharded, **options)


def tensors(states: States) -> Answers:
    return [*states.hidden.values(), *(x for layer in states.attention.values() for x in layer)]


def words(asked: Teacher, batch: Batch) -> Answers:
    outputs = asked(batch, ASKED)
    assert outputs.nsp_logits_S2 is not None
    every = outputs.transform(outputs.hidden_ND)  # as soft targets at all tokens do
    return [outputs.mlm_logits_MV, outputs.nsp_logits_S2, every, *tensors(outputs.states)]


def post_norm(sharded: bool, batch: Batch) -> Answers:
    return words(teacher(sharded, model()), batch)


def pre_norm(sharded: bool, batch: Batch) -> Answers:
    return words(teacher(sharded, model(norm="pre")), batch)


def bf16(sharded: bool, batch: Batch) -> Answers:
    return words(teacher(sharded, model(), "bf16"), batch)


def cut_off(sharded: bool, batch: Batch) -> Answers:
    asked = teacher(sharded, model(), layers=5)
    # Stages ask for layers of their own: some are not computed, and must not be waited for.
    return [*tensors(asked.states(batch, FEW)), *tensors(asked.states(batch, Capture())),
            *tensors(asked.states(batch, Capture(hidden=frozenset({5}))))]  # fmt: skip


def embeddings_alone(sharded: bool, batch: Batch) -> Answers:
    asked = teacher(sharded, model(), layers=0)
    return tensors(asked.states(batch, Capture(hidden=frozenset({0}))))


def two_in_turns(sharded: bool, batch: Batch) -> Answers:
    several = [teacher(sharded, model(seed, layers=3)) for seed in (5, 6)]
    return [each(batch).mlm_logits_MV for _ in range(2) for each in several]


def triton(sharded: bool, batch: Batch) -> Answers:
    backend = Backend(kernels=choose_kernels("triton", "triton", CPU))
    asked = teacher(sharded, model(layers=2), backend=backend)
    return [asked(batch).mlm_logits_MV]


def compiled(sharded: bool, batch: Batch) -> Answers:
    torch.compiler.reset()
    asked = teacher(sharded, model())
    compile_layers(asked._model, backend="aot_eager")
    compilations = CompilationCounter()
    answers = words(asked, batch)
    assert compilations.since_last() == 2, "of layers that show their attention, and of others"
    answers += words(asked, batch)
    assert compilations.since_last() == 0
    return answers


CASES: list[Case] = [
    post_norm, pre_norm, bf16, cut_off, embeddings_alone, two_in_turns, triton, compiled
]  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return what two ranks have found."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(answer_on_two_ranks, args=(str(folder),), nprocs=2)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"rank_{rank}.pt") for rank in range(2)]


def answer_on_two_ranks(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    # Rank 1 has other rows, and none of its words is masked.
    batch = dummy_batch(
        SHAPE.vocab_size, rows=4 - rank, row_tokens=32, masked_tokens=20 * (1 - rank)
    )
    facts: dict[str, Any] = {
        "bytes": [held_bytes(teacher(sharded, model())) for sharded in (True, False)],
        "most": most_and_forecast(),
        "notes": notes_after_questions(teacher(True, model())),
        "check": [checked(model()), checked(with_a_nan(model()))],
    }
    facts |= {case.__name__: (case(True, batch), case(False, batch)) for case in CASES}
    torch.save(facts, Path(folder) / f"rank_{rank}.pt")
    dist.destroy_process_group()


def held_bytes(asked: Teacher) -> int:
    """Return the bytes of the parameters of a teacher that has answered."""
    asked(dummy_batch(SHAPE.vocab_size, 2, 16))
    parts = (getattr(p, "_local_tensor", p) for p in asked._model.parameters())
    return sum(part.untyped_storage().nbytes() for part in parts)


def most_and_forecast() -> tuple[int, int]:
    """Return the bytes that lie there while a layer is computed, and as many as are foretold."""
    shape = {"layers": 4, "width": 128, "feed_forward": 512}
    others = storages()  # held, so that no address of theirs is given away
    known = {storage.data_ptr() for storage in others}
    asked = teacher(True, model(**shape))
    weighed: list[int] = []

    def weigh(*_: Any) -> None:
        new = {s.data_ptr(): s.nbytes() for s in storages() if s.data_ptr() not in known}
        weighed.append(sum(new.values()))

    for layer in asked._model.bert.encoder.layer:
        layer.register_forward_pre_hook(weigh)
    asked(dummy_batch(asked.shape.vocab_size, 1, 8, masked_tokens=1))
    assert len(weighed) == 4
    return max(weighed), 4 * asked.peak_parameters


def storages() -> list[torch.UntypedStorage]:
    gc.collect()
    tensors = [x for x in gc.get_objects() if isinstance(x, torch.Tensor)]
    plain = [getattr(x, "_local_tensor", x) for x in tensors]
    return [x.untyped_storage() for x in plain]


def with_a_nan(made: Bert) -> Bert:
    # Of the last row, which rank 1 keeps.
    made.bert.encoder.layer[7].output.dense.weight.data[-1, 0] = float("nan")
    return made


def checked(made: Bert) -> str:
    """Return why a sharded teacher is refused, if it is."""
    try:
        teacher(True, made).check(dummy_batch(SHAPE.vocab_size, 2, 16), ASKED, needs_logits=True)
    except UserError as error:
        return str(error)
    return "sound"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_teacher_that_is_shared_out_gives_the_same_answers_bit_for_bit(
    found: Found, case: Case
) -> None:
    for rank, facts in enumerate(found):
        sharded, whole = facts[case.__name__]
        assert len(sharded) == len(whole) > 0
        for one, other in zip(sharded, whole, strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other), rank
    # Ranks were asked about rows of their own, one of them about no word at all.
    assert found[0][case.__name__][0][-1].shape != found[1][case.__name__][0][-1].shape


def test_what_is_noted_for_a_backward_pass_does_not_grow_with_the_answers(found: Found) -> None:
    for facts in found:
        assert facts["notes"] == [0, 0, 0]


def test_each_rank_keeps_half_of_the_layers(found: Found) -> None:
    made = model()
    layers = 4 * sum(p.numel() for p in made.bert.encoder.parameters())
    total = 4 * made.count_parameters()
    for facts in found:
        sharded, whole = facts["bytes"]
        assert whole == total
        assert sharded == total - layers // 2
        assert sharded < 0.55 * whole


def test_two_more_layers_lie_there_while_one_is_computed(found: Found) -> None:
    for facts in found:
        most, foretold = facts["most"]
        # The rest is a batch of 8 tokens.
        assert foretold <= most < 1.02 * foretold


def test_all_ranks_refuse_a_weight_that_is_no_number_on_one_of_them(found: Found) -> None:
    for facts in found:
        sound, refused = facts["check"]
        assert sound == "sound"
        assert "has NaN" in refused and "layer.7.output.dense.weight" in refused
