"""The fast route: a whole batch in one forward pass, prompts that start alike and their continuations as one tree."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from sb3_llm.scoring.buckets import buckets, pass_cost
from sb3_llm.scoring.frozen import FrozenLayers
from sb3_llm.scoring.layout import PLAIN, Layout, MaskForm, additive_mask, branch, lay_out
from sb3_llm.scoring.model import drops_caches, head_input, widen
from sb3_llm.scoring.past import Layers, Store, cache_of, layers_of
from sb3_llm.scoring.rows import Row, Scorer, Scores, shared_length
from sb3_llm.scoring.trie import Ints, build_trie, reads

NOTHING: Ints = np.zeros(0, dtype=np.int64)


class PackedScorer:
    """
    Score a batch for less than the price of one forward pass over its prompts.

    What is shared is computed once: continuations share their prompt and their common first tokens; prompts that start
    alike stand in one row as a tree, as long as it stays short; what all prompts start with is computed in front of a
    batch; and without gradients, prompts go on from those scored before, for as long as the weights stay. Rows of like
    length go together.
    Equal to :class:`~sb3_llm.scoring.reference.ReferenceScorer` wherever a model takes explicit masks and positions,
    which :func:`~sb3_llm.scoring.probe.choose_scorer` verifies.

    :param lm: causal language model
    :param form: how it wants its attention mask
    :param frozen: its lower layers, if they never change: their work is then remembered for each prompt
    :param beyond: scores rows of more columns than the form allows
    :param pass_cost: columns that one more forward pass is worth; by default from the device
    """

    name = "packed"

    def __init__(
        self,
        lm: PreTrainedModel,
        form: MaskForm = PLAIN,
        frozen: FrozenLayers | None = None,
        beyond: Scorer | None = None,
        pass_cost: int | None = None,
    ) -> None:
        self.lm = lm
        self.form = form
        self.frozen = frozen
        self._beyond = beyond
        self.pass_cost = pass_cost
        self.store = Store()

    def forget(self) -> None:
        """Drop keys and values: the weights have changed."""
        self.store.clear()

    def score(self, rows: Sequence[Row]) -> Scores:
        """
        Score every continuation of every row; differentiably, if gradients are on.

        :param rows: U rows
        :return: scores (U, A) and value features (U, H)
        """
        if self._beyond and max(row.n_columns for row in rows) > (self.form.max_columns or 0):
            return self._beyond.score(rows)
        if self.frozen:
            self.frozen.prepare(rows)
        order = sorted(range(len(rows)), key=rows.__getitem__)
        ordered = [rows[place] for place in order]
        layers, starts = self._starts(ordered)
        groups, sizes = branch(ordered, [len(start) for start in starts], self.form.max_columns)
        passes = [[groups[place] for place in each] for each in buckets(sizes, self._cost)]
        parts = [self._score(each, ordered, layers, starts) for each in passes]
        width = max(log_probs.shape[1] for log_probs, _ in parts)
        log_probs = torch.cat([pad(part, (0, width - part.shape[1])) for part, _ in parts])
        places = [order[place] for place in chain(*chain(*passes))]
        back = torch.from_numpy(np.argsort(places)).to(log_probs.device)
        return Scores(log_probs[back], torch.cat([features for _, features in parts])[back])

    @property
    def _cost(self) -> int:
        return pass_cost(self.lm.device) if self.pass_cost is None else self.pass_cost

    # -- what was computed before --------------------------------------------------------------------------------------

    def _starts(self, rows: list[Row]) -> tuple[Layers, list[Ints]]:
        """Say what was computed before: keys and values, and where in them each prompt's first tokens stand."""
        shared = shared_length([row.prompt for row in rows])
        nothing: tuple[Layers, list[Ints]] = [], [NOTHING] * len(rows)
        if self._without_keys:
            return nothing
        if torch.is_grad_enabled():
            if shared * (len(rows) - 1) <= self._cost:
                return nothing
            cache, _ = self._compute(rows[0], shared)
            return layers_of(cache), [np.arange(shared)] * len(rows)
        self.store.trim()
        found = [self.store.find(row.prompt) for row in rows]
        if sum(max(shared - len(start), 0) for start in found) - shared > self._cost:
            cache, layout = self._compute(rows[0], shared)
            self.store.keep([rows[0].prompt[:shared]], [NOTHING], layout.places, cache, shared)
            found = [self.store.find(row.prompt) for row in rows]
        return self.store.layers, found

    @property
    def _stores(self) -> bool:
        return not torch.is_grad_enabled() and not self._without_keys

    @property
    def _without_keys(self) -> bool:
        """Whether no layer that runs makes keys and values that can be kept."""
        return drops_caches(self.lm) or (self.frozen is not None and self.frozen.all_layers)

    def _compute(self, row: Row, length: int) -> tuple[DynamicCache, Layout]:
        """Compute keys and values of a prompt's first tokens."""
        cache = DynamicCache()
        start = Row(row.prompt[:length], ((0,),))  # a continuation of one token adds no node
        layout = lay_out([[start]], [0], self.lm.device)
        self._forward([row], [0], layout, layout.places, cache)
        return cache, layout

    # -- one forward pass ----------------------------------------------------------------------------------------------

    def _score(
        self, groups: list[list[int]], rows: list[Row], layers: Layers, starts: list[Ints]
    ) -> tuple[Tensor, Tensor]:
        """Return scores (M, A) and features (M, H) of the M rows in some groups, in their order."""
        mine = [rows[place] for place in chain(*groups)]
        heads = [starts[group[0]] for group in groups]
        before = [head for head, group in zip(heads, groups, strict=True) for _ in group]
        layout = lay_out([[rows[place] for place in group] for group in groups], list(map(len, heads)), self.lm.device)
        cache = cache_of(layers, heads, self.lm.device) if any(map(len, heads)) or self._stores else None
        tries = [build_trie(row.continuations) for row in mine]
        states = [places[-trie.n_nodes - 1 :] for places, trie in zip(layout.places, tries, strict=True)]
        logits, hidden = self._forward(mine, list(map(len, before)), layout, states, cache)
        if cache is not None and self._stores:
            tokens = [
                places[: len(row.prompt) - len(start)]
                for row, places, start in zip(mine, layout.places, before, strict=True)
            ]
            self.store.keep([row.prompt for row in mine], before, tokens, cache, layout.input_ids.shape[1])
        state, target = (torch.from_numpy(each).to(logits.device) for each in reads(tries))  # (M, A, K)
        picked = widen(logits).log_softmax(dim=-1)[state, target.clamp(min=0)]
        return picked.masked_fill(target < 0, 0.0).sum(dim=-1), widen(hidden)[state[:, 0, 0]]

    def _forward(
        self, rows: list[Row], used: list[int], layout: Layout, states: list[Ints], cache: DynamicCache | None
    ) -> tuple[Tensor, Tensor]:
        """Run the model once: (N, V) what it says at N states, and (N, H)."""
        named: dict[str, Any] = {} if cache is None else {"past_key_values": cache}
        named["attention_mask"] = additive_mask(layout, self.form, self.lm.dtype)
        named |= {"input_ids": layout.input_ids, "position_ids": layout.position_ids, "use_cache": cache is not None}
        reads_at = torch.from_numpy(np.concatenate(states)).to(self.lm.device)
        with head_input(self.lm, reads_at) as hidden:
            if self.frozen is None:
                logits = self.lm(**named).logits
            else:
                with self.frozen.resume(rows, used, layout):
                    logits = self.lm(**named).logits
        return logits[0], hidden[-1][0]
