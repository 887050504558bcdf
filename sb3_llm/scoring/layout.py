"""Where everything stands in a packed row: prompts, the nodes of their trees, and the mask that keeps them apart."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedConfig

from sb3_llm.scoring.trie import Forest


class Layout(NamedTuple):
    """
    U rows of S = P + n columns, after L columns that were computed before: K = L + S columns can be seen.

    A row is a prompt (without what was computed before), padded on the left to P, then the n nodes of its tree. What
    was computed before is padded on the left as well.

    :param input_ids: (U, S) tokens; any id stands for padding, which no other column sees
    :param position_ids: (U, S) positions in the text, the same for nodes of one depth
    :param seen_positions: (U, K) positions of all columns, below 0 for padding
    :param sees: (U, S, K) bool, which column sees which under full attention
    """

    input_ids: Tensor
    position_ids: Tensor
    seen_positions: Tensor
    sees: Tensor


class MaskForm(NamedTuple):
    """
    How an architecture wants its attention mask.

    :param kinds: keys of a dict of masks, one for each type of layer; empty for a single tensor
    :param window: how many positions back a sliding layer sees, itself included
    :param chunk: positions are seen from within the same chunk of this length only (Llama 4)
    :param max_columns: beyond so many columns the form is wrong (GPT-Neo counts its window in columns)
    """

    kinds: tuple[str, ...] = ()
    window: int | None = None
    chunk: int | None = None
    max_columns: int | None = None


PLAIN = MaskForm()  # full attention in every layer


def lay_out(prompts: Sequence[Sequence[int]], forest: Forest, past: Sequence[int] | None = None) -> Layout:
    """
    Place prompts and trees for one forward pass.

    Positions are explicit: learned positions (GPT-2) would count the padding, and transformers takes falling positions
    without a mask for packed sequences. A padding column sees itself, since a row that sees nothing gives NaN.

    :param prompts: U prompts as token ids, without the tokens computed before; none empty
    :param forest: their trees
    :param past: (U,) how many tokens of each prompt were computed before, in the last of L = max(past) columns
    :return: the layout, on the device of the forest
    """
    device = forest.token.device
    width, before = max(map(len, prompts)), max(past or [0])
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)[:, None]  # (U, 1)
    done = torch.tensor(past or [0] * len(prompts), device=device)[:, None]  # (U, 1)
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)  # (U, P)

    columns = torch.arange(before + width, device=device)
    earlier = columns[:before] - (before - done)  # (U, L) below 0 in the padding
    inside = columns[:width] - (width - lengths)  # (U, P) below 0 in the padding
    nodes = done + lengths - 1 + forest.depth  # (U, n)
    positions = torch.cat([(done + inside).where(inside >= 0, -1), nodes], dim=1)  # (U, S)
    seen_positions = torch.cat([earlier.clamp(min=-1), positions], dim=1)  # (U, K)
    real = (seen_positions >= 0)[:, None]  # (U, 1, K)
    sees = (_sees(width, before, forest) & real) | _itself(width + forest.n_nodes, before, device)
    return Layout(torch.cat([ids, forest.token], dim=1), positions.clamp(min=0), seen_positions, sees)


def _sees(width: int, before: int, forest: Forest) -> Tensor:
    """(1 or U, S, K): a prompt column sees what stands before it; a node the whole prompt and the nodes above it."""
    nodes, device = forest.n_nodes, forest.token.device
    prompt = torch.ones(width, before + width, dtype=torch.bool, device=device).tril(diagonal=before)
    above = torch.ones(forest.token.shape[0], nodes, before + width, dtype=torch.bool, device=device)
    trees = torch.cat([above, forest.ancestors], dim=2)  # (U, n, K)
    return torch.cat([pad(prompt, (0, nodes), value=False).expand(len(trees), -1, -1), trees], dim=1)


def _itself(size: int, before: int, device: torch.device) -> Tensor:
    return pad(torch.eye(size, dtype=torch.bool, device=device), (before, 0), value=False)  # (S, K)


def additive_mask(layout: Layout, form: MaskForm, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """
    Write the attention mask as an architecture wants it.

    It is additive, 0 or the lowest number: transformers adds a boolean one to the attention scores in eager attention,
    without an error. A window is counted in positions, as nodes of one depth share one; the model itself would count
    columns.

    :param layout: U rows of S columns that see K
    :param form: of the architecture
    :param dtype: of the model
    :return: (U, 1, S, K), or one such mask for each kind of layer
    """
    if not form.kinds:
        return _additive(_near(layout, form.window, form.chunk), dtype)
    limits = {"sliding_attention": (form.window, None), "chunked_attention": (None, form.chunk)}
    return {kind: _additive(_near(layout, *limits.get(kind, (None, None))), dtype) for kind in form.kinds}


def _near(layout: Layout, window: int | None, chunk: int | None) -> Tensor:
    asks, seen = layout.seen_positions[:, -layout.input_ids.shape[1] :, None], layout.seen_positions[:, None]
    if window is not None:
        return layout.sees & (asks - seen < window)
    if chunk is not None:
        return layout.sees & (asks.clamp(min=0) // chunk == seen.clamp(min=0) // chunk)
    return layout.sees


def _additive(sees: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
    return mask[:, None]


def mask_forms(config: PreTrainedConfig) -> list[MaskForm]:
    """
    List how a model may want its mask, likeliest first; a probe finds out which is right.

    A model computes windows only when it makes the mask itself; a mask of ours replaces all of it. Models with several
    types of layer take a dict (Gemma 2, Cohere 2, GPT-OSS), those with one type a single mask (Mistral).

    :param config: configuration of a language model
    :return: forms to try
    """
    window = attention_window(config)
    if window is None:
        return [MaskForm()]
    text_config = config.get_text_config()
    if getattr(text_config, "attention_layers", None):  # GPT-Neo takes one mask for both kinds of its layers
        return [MaskForm(max_columns=window)]
    kinds = tuple(sorted(set(getattr(text_config, "layer_types", None) or ())))
    chunk = getattr(text_config, "attention_chunk_size", None)
    by_kind = [MaskForm(kinds=kinds, window=window, chunk=chunk)] if kinds else []
    return [*by_kind, MaskForm(window=window, chunk=chunk), MaskForm(max_columns=window)]


def attention_window(config: PreTrainedConfig) -> int | None:
    """
    Say how far back the layers with the shortest sight of a model can see.

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
