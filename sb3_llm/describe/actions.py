"""What the actions of a MiniGrid or BabyAI world really do, under the keys that say it."""

from minigrid.core.actions import Actions
from minigrid.envs.babyai.core import verifier
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
from minigrid.envs.gotodoor import GoToDoorEnv
from minigrid.envs.gotoobject import GoToObjectEnv
from minigrid.envs.memory import MemoryEnv
from minigrid.minigrid_env import MiniGridEnv

#: By MiniGrid's action numbers.
KEYS = ("turn left", "turn right", "go forward", "pick up", "drop", "open", "done")


def meanings(env: MiniGridEnv) -> tuple[tuple[str, int], ...]:
    """
    The actions that a policy is offered: an action that can't do anything, or does what another does, is left out.

    ``done`` is a no-op except where a world's rules look at it: GoToDoor, GoToObject, BabyAI under the environment
    variable BABYAI_DONE_ACTIONS, a class with a ``step`` of its own outside minigrid, and a world that says so by an
    attribute ``uses_done``. Memory turns ``pickup`` into ``toggle``, so there it stays under "open" alone. The other
    six are offered everywhere, even where a world has nothing to carry or to open: published figures and baselines
    are of six or seven actions. A world that has fewer actions, as Dynamic-Obstacles, is offered those.

    :param env: the world itself, without wrappers
    :return: (key, the world's action number), in the order of the numbers; an eighth action is called "action 7"
    """
    n_actions = int(getattr(env.action_space, "n", 0))
    keys = KEYS + tuple(f"action {number}" for number in range(len(KEYS), n_actions))
    left_out = _left_out(env)
    return tuple((key, number) for number, key in enumerate(keys[:n_actions]) if number not in left_out)


def _left_out(env: MiniGridEnv) -> set[int]:
    rules = _rules(env)
    left_out = set() if _done_counts(env, rules) else {int(Actions.done)}
    return left_out | {int(Actions.pickup)} if rules is MemoryEnv else left_out


def _rules(env: MiniGridEnv) -> type:
    """:return: the class whose ``step`` runs first: a subclass that only draws other worlds keeps the rules."""
    return next(cls for cls in type(env).__mro__ if "step" in vars(cls))


def _done_counts(env: MiniGridEnv, rules: type) -> bool:
    """:return: whether the action ``done`` can do anything in this world."""
    told = getattr(env, "uses_done", None)
    if told is not None:
        return bool(told)
    if rules.__module__.partition(".")[0] != "minigrid":
        return True  # nobody but its author knows
    if issubclass(rules, RoomGridLevel):
        return bool(verifier.use_done_actions)  # the variable is read once, when minigrid is imported
    return issubclass(rules, GoToDoorEnv | GoToObjectEnv)
