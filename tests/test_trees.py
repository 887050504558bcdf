"""Trees of phrases, rows of prompts that start alike, and what each column of them sees."""

import pytest
import torch
from torch import Tensor

from sb3_llm.errors import SetupError
from sb3_llm.scoring import Row
from sb3_llm.scoring.layout import MaskForm, additive_mask, branch, lay_out
from sb3_llm.scoring.trie import build_trie, reads


def test_trie_of_shared_prefixes() -> None:
    trie = build_trie(((5, 6, 7), (5, 6, 8), (5, 9), (4,), (5,)))
    assert trie.n_nodes == 2
    assert trie.token.tolist() == [5, 6]
    assert trie.depth.tolist() == [1, 2]
    assert trie.last.tolist() == [1, 1]
    assert trie.state.tolist() == [[0, 1, 2], [0, 1, 2], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert trie.target.tolist() == [[5, 6, 7], [5, 6, 8], [5, 9, -1], [4, -1, -1], [5, -1, -1]]


def test_trie_keeps_branches_apart() -> None:
    trie = build_trie(((1, 2, 3), (4, 2, 3)))
    assert trie.token.tolist() == [1, 2, 4, 2]
    assert trie.state.tolist() == [[0, 1, 2], [0, 3, 4]]
    assert trie.last.tolist() == [1, 1, 3, 3]


def test_trie_puts_what_is_below_a_node_right_behind_it() -> None:
    trie = build_trie(((1, 2), (3, 4), (1, 5, 6), (1, 5, 7)))
    assert trie.token.tolist() == [1, 5, 3]
    assert trie.last.tolist() == [1, 1, 2]
    assert trie.state.tolist() == [[0, 1, 0], [0, 3, 0], [0, 1, 2], [0, 1, 2]]


def test_trie_of_single_tokens_feeds_nothing() -> None:
    trie = build_trie(((3,), (1,), (2,)))
    assert trie.n_nodes == 0
    assert len(trie.last) == 0
    assert trie.state.tolist() == [[0], [0], [0]]


def test_where_many_rows_are_read() -> None:
    tries = [build_trie(each) for each in (((1, 2), (3,)), ((4, 5, 6),), ((7,), (8,), (9,)))]
    state, target = reads(tries)
    assert state.shape == target.shape == (3, 3, 3)
    assert target[0].tolist() == [[1, 2, -1], [3, -1, -1], [-1, -1, -1]]
    assert state[0, 0, :2].tolist() == [0, 1]
    assert state[1, 0].tolist() == [2, 3, 4]
    assert state[2, :, 0].tolist() == [5, 5, 5]
    alike = reads([tries[0]] * 3)
    assert alike[0][:, 0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert alike[1][2].tolist() == [[1, 2], [3, -1]]


@pytest.mark.parametrize(
    ("sequences", "words"),
    [(((1, 2), (3,), (1, 2)), "0 and 2 are both"), (((1,), ()), "1 of 2 is empty"), ((), "no token")],
)
def test_trie_refuses(sequences: tuple[tuple[int, ...], ...], words: str) -> None:
    with pytest.raises(SetupError, match=words):
        build_trie(sequences)


CPU = torch.device("cpu")


def test_layout_by_hand() -> None:
    """A prompt of one token and one of two, each with two nodes; padding at the end sees itself."""
    low = torch.finfo(torch.float32).min
    pair = ((1, 2), (3, 4))
    layout = lay_out([[Row((7,), pair)], [Row((8, 9), pair)]], [0, 0], CPU)
    assert layout.input_ids.tolist() == [[7, 1, 3, 0], [8, 9, 1, 3]]
    assert layout.position_ids.tolist() == [[0, 1, 1, 0], [0, 1, 2, 2]]
    assert [each.tolist() for each in layout.places] == [[0, 1, 2], [4, 5, 6, 7]]
    mask = additive_mask(layout, MaskForm(), torch.float32)
    assert isinstance(mask, Tensor)
    assert mask.shape == (2, 1, 4, 4)
    assert mask[0, 0].tolist() == [
        [0, low, low, low],
        [0, 0, low, low],
        [0, low, 0, low],
        [low, low, low, 0],
    ]
    assert (mask[1, 0] == 0).long().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


def test_prompts_that_start_alike_stand_in_one_row() -> None:
    """5 6 with a node, the same without, 5 6 8, and 5 9: five columns beside the nodes, each seen by its branch."""
    rows = sorted([Row((5, 6), ((1, 2),)), Row((5, 6), ((3,),)), Row((5, 6, 8), ((3,),)), Row((5, 9), ((1, 2),))])
    layout = lay_out([rows], [0], CPU)
    assert layout.input_ids.tolist() == [[5, 6, 1, 8, 9, 1]]
    assert layout.position_ids.tolist() == [[0, 1, 2, 2, 1, 2]]
    assert [each.tolist() for each in layout.places] == [[0, 1, 2], [0, 1], [0, 1, 3], [0, 4, 5]]
    assert layout.sees[0].long().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 0, 0, 0, 1, 0],
        [1, 0, 0, 0, 1, 1],
    ]


def test_what_is_put_together() -> None:
    """Prompts that share much more than was computed before, in rows that stay short, or as short as they must be."""
    long, other = tuple(range(100, 200)), tuple(range(200, 300))
    rows = [Row((*long, 1), ((3,),)), Row((*long, 2, 2), ((3,),)), Row(other, ((3,),))]
    assert branch(rows, [0, 0, 0]) == ([[0, 1], [2]], [103, 100])
    assert branch(rows, [95, 95, 0]) == ([[0], [1], [2]], [6, 7, 100]), "five tokens are not worth a mask"
    assert branch(rows, [50, 20, 0]) == ([[0, 1], [2]], [53, 100])
    assert branch(rows, [0, 0, 0], most=102) == ([[0], [1], [2]], [101, 102, 100])
    apart = [Row((*long, 1), ((3,),)), Row((*long[:40], 500), ((3,),))]
    assert branch(apart, [50, 10]) == ([[0], [1]], [51, 31]), "it does not share all that the first one knows"
    many = [Row((*long, place), ((3,),)) for place in range(200)]
    groups, sizes = branch(many, [0] * 200)
    assert max(sizes) <= 256
    assert sorted(place for group in groups for place in group) == list(range(200))


def test_layout_after_columns_computed_before() -> None:
    """Three tokens of the first prompt and one of the second are done; a window of 2 counts positions.

    What a column of padding sees is read by nobody.
    """
    layout = lay_out([[Row((4, 5, 6, 7), ((1, 2),))], [Row((4, 8, 9), ((1, 2),))]], [3, 1], CPU)
    assert layout.input_ids.tolist() == [[7, 1, 0], [8, 9, 1]]
    assert layout.position_ids.tolist() == [[3, 4, 0], [1, 2, 3]]
    assert layout.seen_positions.tolist() == [[0, 1, 2, 3, 4, 0], [-2, -1, 0, 1, 2, 3]]
    masks = additive_mask(layout, MaskForm(("full_attention", "sliding_attention"), window=2), torch.float32)
    assert isinstance(masks, dict)
    full, near = ((masks[kind][:, 0] == 0).long().tolist() for kind in ("full_attention", "sliding_attention"))
    assert full[0][:2] == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]]
    assert full[1] == [[0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]]
    assert near[0][:2] == [[0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0]]
    assert near[1] == [[0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]]
