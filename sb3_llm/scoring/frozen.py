"""Lower layers that never change: what they make of a prompt is computed once in a whole training."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sb3_llm.errors import SetupError
from sb3_llm.scoring.buckets import buckets, pass_cost
from sb3_llm.scoring.layout import PLAIN, Layout, MaskForm, additive_mask, branch, lay_out
from sb3_llm.scoring.model import decoder_layers
from sb3_llm.scoring.rows import Row
from sb3_llm.scoring.weights import WeightsWatch


class FrozenLayers:
    """
    The lower layers of a model, and what they made of each row: hidden states of its prompt and of its tree's nodes.

    Training of the upper layers alone meets the same prompts in the rollout and in every epoch of the update. As what
    lies below the cut never changes, its output is computed once for each row and kept, and later passes run the upper
    layers only. Nothing of it needs a gradient.

    :param lm: causal language model
    :param count: how many layers are below the cut
    :param form: how the model wants its attention mask
    :param max_bytes: of remembered hidden states; beyond it the oldest are dropped
    :raises SetupError: if the model shows no list of layers, or ``count`` is not within it
    """

    def __init__(self, lm: PreTrainedModel, count: int, form: MaskForm = PLAIN, max_bytes: int = 512 * 2**20) -> None:
        layers = decoder_layers(lm)
        if not 0 < count <= len(layers):
            given = f"{count} frozen layers of a model that has {len(layers)}"
            raise SetupError(given, f"1 to {len(layers)}", "choose another number of layers that stay")
        self.lm, self.form = lm, form
        self._below = layers[:count]
        self.all_layers = count == len(layers)
        self._max_bytes = max_bytes
        frozen = [each for each in lm.parameters() if not each.requires_grad]
        self._watch = WeightsWatch(frozen)
        self._rest: tuple[Any, ...] | None = None
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._kept: OrderedDict[Row, Tensor] = OrderedDict()  # (T + n, H) each, oldest first
        self._bytes = 0

    def prepare(self, rows: Sequence[Row]) -> None:
        """
        Have the hidden states of rows at hand until the next call.

        :param rows: U rows; those not remembered are computed
        """
        if self._watch.changed():
            self.clear()
        for row in rows:
            if row in self._kept:
                self._kept.move_to_end(row)
        missing = sorted(row for row in dict.fromkeys(rows) if row not in self._kept)
        groups, sizes = branch(missing, [0] * len(missing), self.form.max_columns)
        for each in buckets(sizes, pass_cost(self.lm.device)) if missing else []:
            self._compute([[missing[place] for place in groups[group]] for group in each])
        self._drop_oldest(set(rows))

    def _compute(self, groups: list[list[Row]]) -> None:
        """Run the lower layers on whole rows and keep what comes out."""
        layout = lay_out(groups, [0] * len(groups), self.lm.device)
        mask = additive_mask(layout, self.form, self.lm.dtype)
        with torch.no_grad():
            hidden = self._lower(input_ids=layout.input_ids, position_ids=layout.position_ids, attention_mask=mask)
        for row, places in zip(chain(*groups), layout.places, strict=True):
            self._kept[row] = hidden.flatten(0, 1)[torch.from_numpy(places).to(hidden.device)]
            self._bytes += self._kept[row].nbytes

    def _lower(self, **named: Any) -> Tensor:
        """Run a forward pass up to the cut: (G, S, H)."""

        def stop(module: nn.Module, inputs: Any, output: Any) -> None:
            raise _AtTheCut(output)

        handle = self._below[-1].register_forward_hook(stop)
        try:
            self.lm(use_cache=False, **named)
        except _AtTheCut as reached:
            output = reached.args[0]
        finally:
            handle.remove()
        # Some layers return a tuple; those that stand in for them must too.
        self._rest = output[1:] if isinstance(output, tuple) else None
        return output if self._rest is None else output[0]

    def _drop_oldest(self, needed: set[Row]) -> None:
        while self._bytes > self._max_bytes and next(iter(self._kept)) not in needed:
            _, states = self._kept.popitem(last=False)
            self._bytes -= states.nbytes

    @contextmanager
    def resume(self, rows: Sequence[Row], used: Sequence[int], layout: Layout) -> Iterator[None]:
        """
        Let the remembered hidden states stand in for the lower layers, for the length of a ``with`` block.

        :param rows: M rows of :meth:`prepare`
        :param used: (M,) tokens at the start of each that are not computed in this pass
        :param layout: of the pass, with a place for each of the rows, of its first tokens alone or of all
        """
        hidden = self._gather(rows, used, layout)
        output = hidden if self._rest is None else (hidden, *(None for _ in self._rest))
        for layer in self._below:
            layer.forward = lambda *_, **__: output
        try:
            yield
        finally:
            for layer in self._below:
                del layer.forward  # the class's own shows again

    def _gather(self, rows: Sequence[Row], used: Sequence[int], layout: Layout) -> Tensor:
        """(G, S, H)"""
        kept = [self._kept[row] for row in rows]
        firsts = np.cumsum([0, *(len(each) for each in kept[:-1])])
        source = np.zeros(layout.input_ids.numel(), dtype=np.int64)
        for first, done, places in zip(firsts, used, layout.places, strict=True):
            source[places] = first + done + np.arange(len(places))
        index = torch.from_numpy(source).to(kept[0].device).reshape(layout.input_ids.shape)
        return torch.cat(kept)[index]


class _AtTheCut(Exception):
    """Carries the output of the last lower layer out of a forward pass that need not go on."""
