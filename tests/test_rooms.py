"""Random MiniGrid worlds: all can be played to success, none is MiniGrid's, and each kind holds what it says."""

import contextlib
import hashlib
import io
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import gymnasium
import minigrid  # noqa: F401  # registers the ids
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from minigrid.core.actions import Actions
from minigrid.core.world_object import Goal, WorldObj

from sb3_llm.envs.rooms import RoomsEnv
from sb3_llm.envs.rooms_kinds import KINDS, draw_kind
from sb3_llm.envs.rooms_layout import MAX_SIDE, TAKEN_SIZES, one_room
from sb3_llm.envs.rooms_world import World
from tests.rooms_player import Place, Player, find, targets_of, things_of

kinds = pytest.mark.parametrize("kind", list(KINDS))


# --- every world


@kinds
@pytest.mark.parametrize(("max_size", "seeds"), [(9, 20), (13, 50)])
def test_every_world_can_be_played_to_success(kind: str, max_size: int, seeds: int) -> None:
    env = RoomsEnv(kind, max_size=max_size)
    for seed in range(seeds):
        env.reset(seed=seed)
        assert env.kind_drawn == kind
        assert [len(places) for places in targets_of(env)] == [1] * len(targets_of(env)), env.mission
        player = Player(env)
        player.play()
        assert player.ended, (seed, env.mission)
        assert player.reward == pytest.approx(1 - 0.9 * env.step_count / env.max_steps)
        assert env.step_count < env.max_steps
        assert max(env.width, env.height) <= max_size


def test_large_worlds_can_be_played_too() -> None:
    env = RoomsEnv(max_size=25)
    for seed in range(40):
        env.reset(seed=seed)
        player = Player(env)
        player.play()
        assert player.reward > 0


def minigrid_sizes() -> set[Place]:
    """Outer sizes of all MiniGrid and BabyAI worlds."""
    sizes = set()
    with contextlib.redirect_stdout(io.StringIO()):
        for env_id in list(gymnasium.registry):
            if env_id.startswith(("MiniGrid-", "BabyAI-")) and "WFC" not in env_id:
                env: Any = gymnasium.make(env_id).unwrapped
                sizes.add((env.width, env.height))
    return sizes


@pytest.mark.filterwarnings("ignore")
def test_no_world_is_one_of_minigrid() -> None:
    taken = minigrid_sizes()
    assert {size for size in taken if size[0] != size[1]} == TAKEN_SIZES
    for max_size in (9, 13, 25):
        env = RoomsEnv(max_size=max_size)
        for seed in range(500 if max_size == 13 else 50):
            env.reset(seed=seed)
            assert env.width != env.height
            assert (env.grid.width, env.grid.height) == (env.width, env.height)
            assert (env.width, env.height) not in taken
            goal_in_corner = isinstance(env.grid.get(env.width - 2, env.height - 2), Goal)
            assert not (goal_in_corner and tuple(env.agent_pos) == (1, 1))


def test_agent_and_goal_never_have_both_corners() -> None:
    for corner in (True, False):
        world = World(np.random.default_rng(0), one_room((5, 4)))
        world.things[(3, 2) if corner else (2, 2)] = Goal()
        starts = set()
        for _ in range(200):
            world.put_agent()
            starts.add(world.agent)
        assert len(starts) == (4 if corner else 5)
        assert ((1, 1) in starts) != corner


def snapshot(env: RoomsEnv, seed: int) -> tuple[Any, ...]:
    observation, _ = env.reset(seed=seed)
    view = observation["image"].tobytes()
    return env.hash(64), env.mission, env.kind_drawn, env.max_steps, env.see_through_walls, view


def test_same_seed_same_world() -> None:
    first, second = RoomsEnv(), RoomsEnv()
    worlds = [snapshot(first, seed) for seed in range(60)]
    assert [snapshot(second, seed) for seed in reversed(range(60))] == worlds[::-1]
    assert len(set(worlds)) == 60
    first.reset(seed=3)
    assert len({first.reset()[0]["image"].tobytes() for _ in range(10)}) == 10  # the stream goes on


def test_worlds_are_the_same_on_every_machine() -> None:
    drawn = ["goal", "walls", "lava", "chain", "keydoor", "lockedroom", "boxed", "fetch", "opentwo", "putnear"]
    worlds = [snapshot(env, seed)[:2] for env in map(RoomsEnv, drawn) for seed in range(8)]
    # Another number: the corpus is told from other worlds than the embedded model has read. Is that meant?
    assert hashlib.sha256(repr(worlds).encode()).hexdigest()[:16] == "ab0161f043860e44"


# --- what the kinds hold


def count(env: RoomsEnv, fits: Callable[[WorldObj], bool]) -> int:
    return len(find(env, fits))


@pytest.mark.parametrize("kind", ["keydoor", "lockedroom", "corridor", "blocked", "boxed"])
def test_the_target_is_behind_a_locked_door(kind: str) -> None:
    env, seen = RoomsEnv(kind), Counter[str]()
    for seed in range(60):
        env.reset(seed=seed)
        player, target = Player(env), targets_of(env)[0][0]
        (lock,) = player.locks(target)
        assert lock == target or not player.can_face(target)
        (key,) = player.keys(lock)
        assert player.can_face(lock, opened=[key]) == (kind != "blocked")
        assert (env.grid.get(*key).type == "box") == (kind == "boxed")
        seen[env.mission.split()[0]] += 1
    expected = {"lockedroom": {"use", "reach", "get"}, "corridor": {"pick"}}
    assert seen.keys() == expected.get(kind, {"use", "reach", "get", "pick", "open"})


def test_lava_walls_and_chains_are_there() -> None:
    env = RoomsEnv("lava")
    lava = [(env.reset(seed=seed), count(env, lambda thing: thing.type == "lava"))[1] for seed in range(50)]
    assert np.mean(np.array(lava) > 0) > 0.9
    env = RoomsEnv("chain")
    lengths = Counter[int]()
    for seed in range(50):
        env.reset(seed=seed)
        doors = count(env, lambda thing: thing.type == "door")
        assert doors == len(env.plan.links) == len(env.plan.rooms) - 1
        assert len({shut.color for shut in things_of(env).values() if shut.type == "door"}) == min(doors, 6)
        lengths[len(env.plan.rooms)] += 1
    assert min(lengths) == 2
    assert max(lengths) >= 6
    env = RoomsEnv("walls")
    rivers = [(env.reset(seed=seed), len(env.plan.rooms))[1] for seed in range(50)]
    assert min(rivers) == 2
    assert max(rivers) >= 6


@pytest.mark.parametrize("kind", ["goal", "chain", "keydoor", "lockedroom", "corridor", "blocked", "fetch", "putnear"])
def test_rooms_are_two_to_seven_cells_a_side_and_one_in_some_halls(kind: str) -> None:
    env, counts, narrow = RoomsEnv(kind), Counter[int](), 0
    for seed in range(60):
        env.reset(seed=seed)
        rooms = env.plan.rooms if kind not in ("lockedroom", "corridor") else env.plan.rooms[1:]
        for room in rooms:
            sides = room.right - room.left + 1, room.bottom - room.top + 1
            assert 1 <= min(sides) <= max(sides) <= MAX_SIDE
            narrow += min(sides) == 1
        cells = [cell for room in env.plan.rooms for cell in room.cells()]
        assert len(set(cells)) == len(cells)
        counts[len(env.plan.rooms)] += 1
    assert (1 in counts) == (kind in ("goal", "fetch", "putnear"))
    assert (narrow > 10) == (narrow > 0) == (kind in ("lockedroom", "corridor"))
    assert len(counts) >= 4


def test_any_draws_every_kind_by_weight() -> None:
    rng = np.random.default_rng(0)
    drawn = Counter(draw_kind(rng) for _ in range(20_000))
    total = sum(kind.weight for kind in KINDS.values())
    for name, kind in KINDS.items():
        assert abs(drawn[name] / 20_000 - kind.weight / total) < 0.01


def test_walls_are_seen_through_in_some_worlds_unless_said() -> None:
    env = RoomsEnv()
    drawn = [(env.reset(seed=seed), env.see_through_walls)[1] for seed in range(60)]
    assert 5 < sum(drawn) < 40
    for given in (True, False):
        env = RoomsEnv(see_through_walls=given)
        assert {(env.reset(seed=seed), env.see_through_walls)[1] for seed in range(30)} == {given}


# --- the contracts


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["any", "gotodone"])
def test_gymnasium_checks_it(kind: str) -> None:
    env = RoomsEnv(kind, render_mode="rgb_array")
    assert env.action_space == gymnasium.spaces.Discrete(7)
    check_env(env, skip_render_check=True)
    env.reset(seed=5)
    assert env.render().shape == (env.height * env.tile_size, env.width * env.tile_size, 3)


def test_max_steps_is_kept_or_fits_the_world() -> None:
    env = RoomsEnv("goal", max_steps=3)
    env.reset(seed=0)
    assert [env.step(Actions.done)[3] for _ in range(3)] == [False, False, True]
    env = RoomsEnv("keydoor")
    env.reset(seed=0)
    assert env.max_steps == 10 * env.width * env.height


def test_reset_speed() -> None:
    env = RoomsEnv()
    started = time.perf_counter()
    for seed in range(300):
        env.reset(seed=seed)
    print(f"{(time.perf_counter() - started) / 300 * 1000:.2f} ms a reset")
