"""The fast route: a whole batch in one forward pass, each row a prompt followed by the trie of the phrases."""

import inspect
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from sb3_llm.errors import SetupError
from sb3_llm.scoring.reference import Scores, head_input, require_finite, widen
from sb3_llm.scoring.tokens import PromptTokenizer
from sb3_llm.scoring.trie import PhraseTrie, build_trie


class PackedRows(NamedTuple):
    """
    U rows of S = P + n columns: a prompt, padded on the left to P, then the n internal nodes of the trie.

    :param input_ids: (U, S) tokens
    :param attention_mask: (U, 1, S, S) 0 where a column sees another, else the lowest number of the dtype
    :param position_ids: (U, S) position in the text, the same for nodes of one depth
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor


class PackedScorer:
    """
    Score a batch in one forward pass, for about the price of the prompts alone.

    Phrases share the prompt and their common first tokens; equal prompts are computed once. Equal to
    :class:`~sb3_llm.scoring.reference.ReferenceScorer` wherever a model takes a 4D mask and explicit positions, which
    :func:`~sb3_llm.scoring.probe.choose_scorer` verifies.

    :param lm: causal language model
    :param tokens: tokenizer that holds the continuations
    """

    name = "packed"

    def __init__(self, lm: PreTrainedModel, tokens: PromptTokenizer) -> None:
        self.lm = lm
        self.tokens = tokens
        self.window = attention_window(lm.config)
        self._trie = build_trie(tokens.continuation_ids)
        self.token_counts = self._trie.token_counts  # (A,)
        # An adapter's wrapper (PEFT) takes any keyword; the signature that counts is the one below it.
        inner = getattr(lm, "get_base_model", lambda: lm)()
        self._keeps_logits = "logits_to_keep" in inspect.signature(inner.forward).parameters

    def score(self, prompts: Sequence[str]) -> Scores:
        """
        Score every continuation after every prompt, differentiably.

        :param prompts: B prompts
        :return: scores (B, A) and value features (B, H)
        :raises SetupError: if a prompt is empty or too long for the model
        :raises FloatingPointError: if a score is NaN or infinite
        """
        rows = self.tokens.encode(prompts)
        place = {row: index for index, row in enumerate(dict.fromkeys(rows))}  # U distinct rows
        logits, features = self._forward(list(place))  # (U, n + 1, V), (U, H)
        edges = widen(logits).log_softmax(dim=-1)[:, self._trie.edge_state, self._trie.edge_token]  # (U, E)
        log_probs = edges @ self._trie.action_edges.T.to(edges.dtype)  # (U, A)
        expand = torch.tensor([place[row] for row in rows], device=edges.device)  # (B,)
        if not bool(edges.detach().isfinite().all()):
            self._name_broken(edges.detach()[expand], prompts)
        return Scores(log_probs[expand], widen(features)[expand])

    def _forward(self, rows: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """Run the model once and return what it says at the last prompt token and at every node."""
        if self._trie.token.device != self.lm.device:
            self._trie = self._trie.to(self.lm.device)
        packed = pack(rows, self._trie, self.lm.dtype)
        self._require_window(packed.input_ids.shape[1])
        keep = self._trie.n_nodes + 1
        extra = {"logits_to_keep": keep} if self._keeps_logits else {}
        with head_input(self.lm) as hidden:
            logits = self.lm(**packed._asdict(), use_cache=False, **extra).logits
        return logits[:, -keep:], hidden[-1][:, -keep]  # the slices matter where the model kept every column

    def _require_window(self, columns: int) -> None:
        if self.window is not None and columns > self.window:
            raise SetupError(
                f"a packed row of {columns} tokens, in a model whose layers see only the last {self.window}",
                "rows within the window, since one mask for all layers would silently ignore it",
                "shorten the observation text or the history, or take a model without an attention window",
            )

    def _name_broken(self, edges: Tensor, prompts: Sequence[str]) -> None:
        # The product with 0/1 spreads one NaN over all phrases, so the broken phrase is looked up by its own edges.
        sums = [edges[:, passes.bool()].sum(dim=1) for passes in self._trie.action_edges]
        require_finite(torch.stack(sums, dim=1), prompts, self.tokens.continuations)


def pack(rows: Sequence[Sequence[int]], trie: PhraseTrie, dtype: torch.dtype) -> PackedRows:
    """
    Lay out prompts and trie for one forward pass.

    The mask is additive: transformers adds a boolean one to the attention scores in eager attention, without an error.
    Positions are explicit: learned positions (GPT-2) would count the padding. A padded column sees itself, since a row
    that sees nothing gives NaN.

    :param rows: U prompts as token ids, of any lengths above 0
    :param trie: tree of the continuations
    :param dtype: of the model, whose lowest number marks what is not seen
    :return: ids, mask and positions, on the device of the trie
    """
    device = trie.token.device
    width, nodes = max(map(len, rows)), trie.n_nodes
    lengths = torch.tensor([len(row) for row in rows], device=device)[:, None]  # (U, 1)
    # Any id will do for padding: no other column sees it.
    prompt_ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)  # (U, P)
    input_ids = torch.cat([prompt_ids, trie.token.expand(len(rows), nodes)], dim=1)  # (U, S)
    columns = torch.arange(width, device=device) - (width - lengths)  # (U, P) below 0 in the padding
    position_ids = torch.cat([columns.clamp(min=0), lengths - 1 + trie.depth], dim=1)  # (U, S)

    size = width + nodes
    sees = torch.ones(size, size, dtype=torch.bool, device=device).tril()  # (S, S)
    sees[width:, width:] = trie.ancestors
    real = torch.nn.functional.pad(columns >= 0, (0, nodes), value=True)  # (U, S)
    seen = (sees & real[:, None, :]) | torch.eye(size, dtype=torch.bool, device=device)  # (U, S, S)
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)
    return PackedRows(input_ids, mask[:, None], position_ids)


def attention_window(config: PreTrainedConfig) -> int | None:
    """
    Say how far back the layers with the shortest sight of a model can see.

    A window is computed by the model only when it makes the mask itself; a 4D mask replaces it.

    :param config: configuration of a language model
    :return: tokens, or ``None`` where all layers see everything
    """
    text_config = config.get_text_config()
    kinds = [
        *(getattr(text_config, "layer_types", None) or []),
        *(getattr(text_config, "attention_layers", None) or []),
    ]
    if kinds and not any(kind.startswith(("sliding", "local", "chunked")) for kind in kinds):
        return None
    found = [getattr(text_config, key, None) for key in ("sliding_window", "window_size", "attention_chunk_size")]
    windows = [value for value in found if isinstance(value, int) and value > 0]
    return min(windows) if windows else None
