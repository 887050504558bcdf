"""Where everything stands in packed rows: prompts that share a start, their trees, and the mask between columns."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig

from sb3_llm.scoring.rows import Row, common_length
from sb3_llm.scoring.trie import Ints, build_trie


class Layout(NamedTuple):
    """
    G packed rows of S columns, after L columns that were computed before: K = L + S columns can be seen.

    A packed row holds one prompt or several that start alike, as one tree: each token once, in depth-first order, so
    that a column is seen by itself and what follows it up to the end of its branch. The nodes of a prompt's
    continuations are branches as well. Rows are padded at the end; what was computed before is padded at its start.

    :param input_ids: (G, S) tokens; any id stands for padding, which no other column sees
    :param position_ids: (G, S) positions in the text, the same for columns of one depth
    :param seen_positions: (G, K) positions of all columns, below 0 for padding before
    :param sees: (G, S, K) bool, which column sees which under full attention
    :param places: of each prompt, in order: the columns of those of its tokens that were not computed before, then of
        its nodes, counted through all G * S
    """

    input_ids: Tensor
    position_ids: Tensor
    seen_positions: Tensor
    sees: Tensor
    places: list[Ints]


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


class _Packed(NamedTuple):
    """One packed row: (S,) tokens, positions and last columns of branches, and the places of its prompts."""

    token: Ints
    position: Ints
    last: Ints
    places: list[Ints]


def lay_out(groups: Sequence[Sequence[Row]], past: Sequence[int], device: torch.device) -> Layout:
    """
    Place prompts and trees for one forward pass.

    Positions are explicit: learned positions (GPT-2) would count columns, and transformers takes falling positions
    without a mask for packed sequences. A padding column sees itself, since a row that sees nothing gives NaN.

    :param groups: what each of G packed rows holds, in the order of :func:`sorted`
    :param past: (G,) how many tokens that the prompts of a packed row start with were computed before
    :param device: of the model
    :return: the layout
    """
    packed = [_pack(rows, used) for rows, used in zip(groups, past, strict=True)]
    width, before = max(len(row.token) for row in packed), max(past)
    token, position, last = (np.zeros((len(packed), width), dtype=np.int64) for _ in range(3))
    last += np.arange(width)
    for place, row in enumerate(packed):
        size = len(row.token)
        token[place, :size], position[place, :size], last[place, :size] = row.token, row.position, row.last
    columns = torch.arange(width, device=device)
    ids, positions, ends = torch.from_numpy(np.stack([token, position, last])).to(device)  # (G, S) each
    earlier = torch.arange(before, device=device) - before + torch.tensor(past, device=device)[:, None]  # (G, L)
    within = (columns[:, None] >= columns) & (columns[:, None] <= ends[:, None])  # (G, S, S)
    sees = torch.cat([(earlier >= 0)[:, None].expand(-1, width, -1), within], dim=2)
    places = [each + place * width for place, row in enumerate(packed) for each in row.places]
    return Layout(ids, positions, torch.cat([earlier, positions], dim=1), sees, places)


ROW_COLUMNS = 256  # of a packed row, or twice those of one prompt: in longer ones attention outweighs what is saved
LEAST_SHARED = 8  # tokens that a prompt must share with the one before it, beyond what was computed before


def branch(rows: Sequence[Row], past: Sequence[int], most: int | None = None) -> tuple[list[list[int]], list[int]]:
    """
    Put rows that start alike together.

    :param rows: U rows, in the order of :func:`sorted`
    :param past: (U,) how many of each prompt's first tokens were computed before
    :param most: columns that a packed row may have, those computed before included
    :return: G groups as indices of rows, and the columns that each takes; the tokens that were computed before for the
        first of a group are shared by all in it
    """
    groups: list[list[int]] = []
    sizes: list[int] = []
    for place, row in enumerate(rows):
        own = row.n_columns - past[place]
        if groups:
            used = past[groups[-1][0]]
            shared = common_length(rows[place - 1].prompt, row.prompt)
            added = row.n_columns - shared
            limit = max(ROW_COLUMNS, 2 * own) if most is None else most
            if shared >= used and own - added >= LEAST_SHARED and used + sizes[-1] + added <= limit:
                groups[-1].append(place)
                sizes[-1] += added
                continue
        groups.append([place])
        sizes.append(own)
    return groups, sizes


def _pack(rows: Sequence[Row], used: int) -> _Packed:
    token: list[int] = []
    position: list[Ints] = []
    places: list[Ints] = []
    branches: list[_Branch] = []
    for place, row in enumerate(rows):
        trie, length = build_trie(row.continuations), len(row.prompt) - used
        known = max(common_length(rows[place - 1].prompt, row.prompt) - used, 0) if place else 0
        fresh = np.arange(len(token), len(token) + length - known + trie.n_nodes)
        places.append(np.concatenate([places[-1][:known], fresh]) if known else fresh)
        token += [*row.prompt[used + known :], *trie.token.tolist()]
        position += [used + np.arange(known, length), used + length - 1 + trie.depth]
        branches.append(_Branch(known, length, len(token) - trie.n_nodes, trie.last))
    return _Packed(np.array(token), np.concatenate(position), _ends(branches, places), places)


class _Branch(NamedTuple):
    """One prompt in a packed row, tokens computed before left out."""

    known: int  # tokens that the prompt before it has placed
    length: int
    stop: int  # column behind its tokens, where its nodes begin
    last: Ints  # of its nodes, as in the tree


def _ends(branches: list[_Branch], places: list[Ints]) -> Ints:
    """(S,) the last column of the branch that each column starts, found from the last prompt to the first."""
    last = np.zeros(branches[-1].stop + len(branches[-1].last), dtype=np.int64)
    ends = np.zeros(max(branch.length for branch in branches), dtype=np.int64)  # by depth, along the present prompt
    follows = 0  # tokens that the next prompt goes on from
    for branch, mine in zip(reversed(branches), reversed(places), strict=True):
        ends[follows : branch.length] = branch.stop + len(branch.last) - 1
        last[mine[branch.known : branch.length]] = ends[branch.known : branch.length]
        last[branch.stop : branch.stop + len(branch.last)] = branch.stop + branch.last
        follows = branch.known
    return last


def additive_mask(layout: Layout, form: MaskForm, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """
    Write the attention mask as an architecture wants it.

    It is additive, 0 or the lowest number: transformers adds a boolean one to the attention scores in eager attention,
    without an error. A window is counted in positions, as nodes of one depth share one; the model itself would count
    columns.

    :param layout: G packed rows of S columns that see K
    :param form: of the architecture
    :param dtype: of the model
    :return: (G, 1, S, K), or one such mask for each kind of layer
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
