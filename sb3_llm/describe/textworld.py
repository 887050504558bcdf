"""TextWorld's observations in words, which they are already: one text of the four that a game gives."""

from collections.abc import Mapping

NOTHING = "You are carrying nothing."


def describe_textworld(obs: Mapping[str, str]) -> str:
    """
    Say what the goal is, what came of the last command, what there is to see, the way back, and what is carried.

    :param obs: an observation of :class:`~sb3_llm.envs.textworld_games.TextWorldEnv`
    :return: the observation text, in one line
    """
    inventory = "" if obs["inventory"] == NOTHING else obs["inventory"]
    came_from = f"You came from the {obs['came_from']}." if obs["came_from"] else ""
    return " ".join(text for text in (obs["objective"], obs["feedback"], obs["room"], came_from, inventory) if text)
