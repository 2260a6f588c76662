"""An encoder of transformers with the interface of `Bert`, for forward passes without gradients.

The modules are those of transformers. Only their attention is replaced, by the function that
transformers registers for this purpose: it limits each token to its sample, and keeps the queries,
keys and values as attention multiplies them, rotated where the family rotates them. Hidden states
are taken by forward hooks.
Shapes: N tokens with padding, B rows of T tokens, D width, H heads, d head width, M masked tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from pretrain.data.batch import Batch
from pretrain.model.attention import Packing, packed_attention
from pretrain.model.backend import Backend
from pretrain.model.bert import Outputs
from pretrain.model.captured_states import NO_CAPTURE, Capture, Projected, States
from pretrain.model.config import BertShape
from pretrain.model.foreign.hf_config import HF_FAMILIES

Result = TypeVar("Result")
ATTENTION = "stillhouse_packed"


class HfEncoder(nn.Module):
    """A model of transformers over packed rows.

    Args:
        model: of transformers, with `ATTENTION` as its attention.
        model_type: its family.
        shape: its sizes, as far as a BERT has them.
        has_mlm_head: whether it predicts masked tokens.
    """

    def __init__(self, model: Any, model_type: str, shape: BertShape, has_mlm_head: bool) -> None:
        super().__init__()
        self.model, self.model_type, self.shape = model, model_type, shape
        self.has_mlm_head = has_mlm_head
        self.backend = Backend()
        self.projections = nn.ModuleDict()  # as a student has; none here

    def forward(
        self,
        batch: Batch,
        objective: Callable[[Outputs, Batch], Result] | None = None,
        dropout_keys: None = None,
        capture: Capture = NO_CAPTURE,
    ) -> Outputs | Result:
        """Compute one micro-batch, as `Bert` does; without dropout, and without an NSP head."""
        hidden_ND, states = self._encode(batch, capture)
        head, decoder = self._mlm_head()
        bias_V = (
            decoder.bias
            if decoder.bias is not None
            else decoder.weight.new_zeros(len(decoder.weight))
        )
        outputs = Outputs(
            hidden_ND=hidden_ND,
            masked_MD=head(hidden_ND.index_select(0, batch.masked_positions)),
            nsp_logits_S2=None,
            decoder_VD=decoder.weight,
            decoder_bias_V=bias_V,
            kernels=self.backend.kernels,
            states=states,
            transform=head,
        )
        return outputs if objective is None else objective(outputs, batch)

    @property
    def cost_shape(self) -> BertShape:
        """The shape of a BERT of as many operations; windows of attention are not considered."""
        if self.model_type != "modernbert":
            return self.shape
        # Its gated feed-forward block has three matrices instead of two.
        return replace(self.shape, feed_forward=self.shape.feed_forward * 3 // 2)

    def states(self, batch: Batch, capture: Capture) -> States:
        """Return the captured states alone."""
        return self._encode(batch, capture)[1]

    def keep_layers(self, count: int) -> None:
        """Remove the layers above the first `count`; their states cannot be captured any more.

        One always stays: the states of the embeddings are taken as its input.
        """
        del self._layers()[max(count, 1) :]

    def cast_parameters(self, dtype: torch.dtype) -> None:
        """Cast parameters alone, as transformers does when it loads a model in a precision.

        Buffers stay in fp32: the rotary frequencies of ModernBERT, rounded to bf16, would turn
        tokens far from the first by wrong angles.
        """
        for parameter in self.model.parameters():
            parameter.data = parameter.data.to(dtype)

    def count_parameters(self) -> int:
        """Return the number of parameters, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def _encode(self, batch: Batch, capture: Capture) -> tuple[torch.Tensor, States]:
        """Return the last hidden states [N, D] and the captured states."""
        states = States({}, {})
        layers = self._layers()
        hooks = [
            layers[number - 1].register_forward_hook(_keep_output(states, number))
            for number in capture.hidden
            if 0 < number < self.shape.layers
        ]
        if 0 in capture.hidden:
            hooks.append(layers[0].register_forward_pre_hook(_keep_input(states), with_kwargs=True))
        try:
            last_ND = self._run(batch, capture, states)
        finally:
            for hook in hooks:
                hook.remove()
        if self.shape.layers in capture.hidden:
            states.hidden[self.shape.layers] = last_ND
        return last_ND, states

    def _run(self, batch: Batch, capture: Capture, states: States) -> torch.Tensor:
        rows = -1, batch.row_tokens
        inputs: dict[str, Any] = {
            "input_ids": batch.input_ids.view(rows),
            "position_ids": batch.positions.view(rows),
            "packed": _Packed(batch, capture, states),
        }
        if getattr(self.model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = batch.token_types.view(rows)
        if self.model_type == "modernbert":
            # One mask for each kind of layer: none, as attention here makes its own.
            inputs["attention_mask"] = dict.fromkeys(self.model.config.layer_types)
        hidden: torch.Tensor = self.model.base_model(**inputs).last_hidden_state
        return hidden.flatten(0, 1)

    def _layers(self) -> nn.ModuleList:
        layers: nn.ModuleList = self.model.base_model.get_submodule(HF_FAMILIES[self.model_type])
        return layers

    def _mlm_head(self) -> tuple[nn.Module, nn.Linear]:
        """Return the transform and the decoder of the MLM head."""
        assert self.has_mlm_head, "checked before: see `LocatedModel.has_mlm_head`"
        if self.model_type == "modernbert":
            return self.model.head, self.model.decoder
        predictions = self.model.cls.predictions
        return predictions.transform, predictions.decoder


class _Packed:
    """The packing of one forward pass, and where its queries, keys and values are kept."""

    def __init__(self, batch: Batch, capture: Capture, states: States) -> None:
        self._capture, self._states = capture, states
        ids_BT = batch.sample_ids.view(-1, batch.row_tokens)
        self._mask_B1TT = (ids_BT[:, :, None] == ids_BT[:, None, :]).unsqueeze(1)
        self._row_tokens = batch.row_tokens

    def attend(
        self,
        layer: int,
        window: int | None,
        projected_BHTd: tuple[torch.Tensor, ...],
        scaling: float,
    ) -> torch.Tensor:
        """Return the attended values [B, T, H, d] of a layer, counted from 1.

        Args:
            layer: its number.
            window: how far a token attends to both sides; None is to its whole sample.
            projected_BHTd: queries, keys and values.
            scaling: of the scores.
        """
        query, key, value = (x.transpose(1, 2).flatten(0, 1) for x in projected_BHTd)  # [N, H, d]
        if layer in self._capture.attention:
            flat = (x.flatten(1) for x in (query, key, value))
            self._states.attention[layer] = Projected(*flat)
        assert abs(scaling * query.shape[-1] ** 0.5 - 1) < 1e-6, "scores are divided by sqrt(d)"
        packing = Packing(self._row_tokens, None, self._mask(window))
        attended = packed_attention(query, key, value, packing)
        return attended.view(-1, self._row_tokens, *attended.shape[1:])

    def _mask(self, window: int | None) -> torch.Tensor:
        if window is None:
            return self._mask_B1TT
        index = torch.arange(self._row_tokens, device=self._mask_B1TT.device)
        return self._mask_B1TT & ((index[:, None] - index[None, :]).abs() <= window)


def register_attention() -> None:
    """Give transformers the attention of packed rows, under a name of its own."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, _no_mask)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    packed: _Packed,
    scaling: float,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Compute a layer's attention; transformers calls it with the arguments of the forward pass."""
    # FlashAttention, for which ModernBERT states its window, excludes the bound; see its code.
    window = None if sliding_window is None else sliding_window - 1
    attended = packed.attend(module.layer_idx + 1, window, (query, key, value), scaling)
    return attended, None


def _no_mask(*_: Any, **__: Any) -> None:
    """Return no mask: `_attend` has that of the packing."""


def _keep_output(states: States, number: int) -> Callable[..., None]:
    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        hidden_BTD = output[0] if isinstance(output, tuple) else output
        states.hidden[number] = hidden_BTD.flatten(0, 1)

    return keep


def _keep_input(states: States) -> Callable[..., None]:
    def keep(module: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        hidden_BTD = inputs[0] if inputs else named["hidden_states"]
        states.hidden[0] = hidden_BTD.flatten(0, 1)

    return keep
