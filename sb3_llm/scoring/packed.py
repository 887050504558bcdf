"""The fast route: a whole batch in one forward pass, each row a prompt followed by the tree of its continuations."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from sb3_llm.scoring.buckets import PASS_COST, buckets
from sb3_llm.scoring.frozen import FrozenLayers
from sb3_llm.scoring.layout import PLAIN, Layout, MaskForm, additive_mask, lay_out
from sb3_llm.scoring.model import drops_caches, head_input, keywords, widen
from sb3_llm.scoring.past import Past, Turns, caches, common_length, layers_of, shared_length
from sb3_llm.scoring.rows import Row, Scorer, Scores
from sb3_llm.scoring.trie import Forest, plant


class PackedScorer:
    """
    Score a batch for less than the price of one forward pass over its prompts.

    Continuations share their prompt and their common first tokens; the tokens that all prompts start with are computed
    once, for a batch with gradients, for as long as the weights stay without; rows of like length go together. Equal to
    :class:`~sb3_llm.scoring.reference.ReferenceScorer` wherever a model takes explicit masks and positions, which
    :func:`~sb3_llm.scoring.probe.choose_scorer` verifies.

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
        self._keeps_logits = "logits_to_keep" in keywords(lm)
        self._turns = Turns()
        self.forget()

    def forget(self) -> None:
        """Drop keys and values: the weights have changed."""
        self._prefix: Past | None = None
        self._turns.clear()

    def score(self, rows: Sequence[Row]) -> Scores:
        """
        Score every continuation of every row; differentiably, if gradients are on.

        :param rows: U rows
        :return: scores (U, A) and value features (U, H)
        """
        forest = plant([row.continuations for row in rows], self.lm.device)
        if self._beyond and max(len(row.prompt) for row in rows) + forest.n_nodes > (self.form.max_columns or 0):
            return self._beyond.score(rows)
        if self.frozen:
            self.frozen.prepare(rows)
        pasts = self._pasts(rows)
        lengths = [len(row.prompt) - used for row, (_, used) in zip(rows, pasts, strict=True)]
        groups = buckets(lengths, self._cost)
        parts = [self._score_group(group, rows, pasts, forest) for group in groups]
        order = torch.tensor([index for group in groups for index in group], device=self.lm.device).argsort()
        return Scores(*(torch.cat(each)[order] for each in zip(*parts, strict=True)))

    @property
    def _cost(self) -> int:
        return self.pass_cost if self.pass_cost is not None else PASS_COST.get(self.lm.device.type, PASS_COST["cuda"])

    # -- what was computed before --------------------------------------------------------------------------------------

    def _pasts(self, rows: Sequence[Row]) -> list[tuple[Past | None, int]]:
        """Say for each prompt what of it need not be computed."""
        past, used = self._shared(rows)
        if self._may_keep_turns:
            turns = self._turns.find([row.prompt for row in rows], used)
            if turns is not None:
                return list(turns)
        return [(past, used)] * len(rows)

    def _shared(self, rows: Sequence[Row]) -> tuple[Past | None, int]:
        """Compute the start that all prompts share, or take it from the last time, if that pays."""
        shared = shared_length([row.prompt for row in rows])
        if torch.is_grad_enabled():
            pays = shared * (len(rows) - 1) > self._cost and not drops_caches(self.lm)
            return (self._compute(rows[0], shared), shared) if pays else (None, 0)
        known = min(common_length(self._prefix.tokens, rows[0].prompt), shared) if self._prefix else 0
        if (shared - known) * (len(rows) - 1) > self._cost:
            self._prefix, known = self._compute(rows[0], shared), shared
        return self._prefix, known

    def _compute(self, row: Row, length: int) -> Past:
        """Compute keys and values of a prompt's first tokens."""
        start, cache = row.prompt[:length], DynamicCache()
        layout = lay_out([start], plant([((0,),)], self.lm.device))  # a continuation of one token adds no node
        self._forward([row], [0], layout, cache, 0)
        return Past(start, layers_of(cache, 0, slice(None)))

    # -- one forward pass ----------------------------------------------------------------------------------------------

    def _score_group(
        self, group: list[int], rows: Sequence[Row], pasts: list[tuple[Past | None, int]], forest: Forest
    ) -> tuple[Tensor, Tensor]:
        """Return scores (G, A) and features (G, H) of G of the rows."""
        index = torch.tensor(group, device=self.lm.device)
        forest = Forest(**{name: part[index] for name, part in vars(forest).items()})
        mine, used = [rows[place] for place in group], [pasts[place][1] for place in group]
        layout = lay_out([row.prompt[done:] for row, done in zip(mine, used, strict=True)], forest, used)
        cache = self._cache([pasts[place][0] for place in group], used)
        logits, features = self._forward(mine, used, layout, cache, forest.n_nodes)
        if cache is not None and self._keeps_turns:
            self._keep_turns(mine, used, cache, forest.n_nodes)
        return _sums(logits, forest), widen(features)

    def _cache(self, pasts: list[Past | None], used: list[int]) -> DynamicCache | None:
        known = [past for past in pasts if past is not None]
        if max(used) > 0:
            return caches(known, used)
        return DynamicCache() if self._keeps_turns else None

    def _forward(
        self, rows: list[Row], used: list[int], layout: Layout, cache: DynamicCache | None, nodes: int
    ) -> tuple[Tensor, Tensor]:
        """Run the model once: (G, n + 1, V) what it says at the last prompt token and at every node, and (G, H)."""
        named: dict[str, Any] = {"logits_to_keep": nodes + 1} if self._keeps_logits else {}
        if cache is not None:
            named["past_key_values"] = cache
        named["attention_mask"] = additive_mask(layout, self.form, self.lm.dtype)
        named |= {"input_ids": layout.input_ids, "position_ids": layout.position_ids, "use_cache": cache is not None}
        skip = self.frozen.resume(rows, used, layout.input_ids.shape[1], nodes) if self.frozen else nullcontext()
        with head_input(self.lm) as hidden, skip:
            logits = self.lm(**named).logits
        return logits[:, -nodes - 1 :], hidden[-1][:, -nodes - 1]  # slices matter where a model kept every column

    # -- turns of a history --------------------------------------------------------------------------------------------

    @property
    def _may_keep_turns(self) -> bool:
        return not torch.is_grad_enabled() and self.frozen is None and self.form.max_columns is None

    @property
    def _keeps_turns(self) -> bool:
        return self._turns.wanted and self._may_keep_turns

    def _keep_turns(self, rows: list[Row], used: list[int], cache: DynamicCache, nodes: int) -> None:
        before, end = max(used), -nodes or None
        for place, (row, done) in enumerate(zip(rows, used, strict=True)):
            fresh = len(row.prompt) - done
            columns = slice(before - done, before), slice(-nodes - fresh, end)
            self._turns.keep(Past(row.prompt, layers_of(cache, place, *columns)))


def _sums(logits: Tensor, forest: Forest) -> Tensor:
    """Add up the log-probabilities along each continuation: (G, A)."""
    log_probs = widen(logits).log_softmax(dim=-1)  # (G, n + 1, V)
    reads = torch.arange(len(logits), device=logits.device)[:, None, None], forest.state, forest.target.clamp(min=0)
    return log_probs[reads].masked_fill(forest.target < 0, 0.0).sum(dim=-1)
