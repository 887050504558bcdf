"""Phrases that come with each observation: what the present state offers, as the environment's side tells it."""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gymnasium import spaces

from sb3_llm.errors import SetupError
from sb3_llm.spaces import MAX_SLOTS, is_whole

#: ``(obs, info)`` -> the phrases possible now, with or without the environment's action for each.
Candidates = Callable[[Any, dict[str, Any]], Mapping[str, Any] | Sequence[str]]
DEFAULT_SLOTS = 64
#: SB3 keeps the observation that ends an episode; it needs a phrase even if nothing is possible any more.
AT_THE_END = "nothing"


class Offer(NamedTuple):
    """What can be done in a state."""

    phrases: tuple[str, ...]
    actions: tuple[Any, ...]  # what the environment's step gets for each phrase


def check_candidates(candidates: Any, slots: Any, phrases: Any) -> None:
    """
    :param candidates: should be a callable, or None
    :param slots: should be a number of phrases from 1, and the default without ``candidates``
    :param phrases: should be None with ``candidates``
    :raises SetupError: if one is something else
    """
    if candidates is None and slots == DEFAULT_SLOTS:
        return
    if not callable(candidates):
        raise SetupError(
            f"candidates={reprlib.repr(candidates)} with slots={slots!r}",
            "candidates= as a callable (obs, info) -> phrases possible now, or neither of them",
            "pass candidates=, or leave slots out where the actions are always the same",
        )
    if phrases is not None:
        raise SetupError(
            f"phrases={reprlib.repr(phrases)} together with candidates=",
            "one of them: phrases= for actions that are always the same, candidates= for those of each state",
            "leave one out",
        )
    if not is_whole(slots) or not 1 <= slots <= MAX_SLOTS:
        raise SetupError(
            f"slots={slots!r}", f"the most phrases that one state offers, 1 to {MAX_SLOTS}", "leave slots out"
        )


def read_candidates(found: Any, action_space: spaces.Space, ended: bool) -> Offer:
    """
    Turn what ``candidates`` returned into phrases and actions; the phrases themselves are checked when encoded.

    :param found: a mapping from phrases to actions of the environment, or phrases that are its actions themselves
    :param action_space: the environment's own
    :param ended: the episode is over, so that nothing need be possible
    :return: the offer; at an end without any, a phrase that stands for none
    :raises SetupError: for something else, for phrases alone where actions are numbers, or if nothing is offered
    """
    if isinstance(found, str) or not isinstance(found, Mapping | Sequence):
        raise SetupError(
            f"candidates(obs, info) returned {reprlib.repr(found)} ({type(found).__name__})",
            "a mapping from each phrase to the environment's action, or a list of phrases that are its actions",
            "return a dict or a list",
        )
    if len(found) == 0 and ended:
        return Offer((AT_THE_END,), ())
    if len(found) == 0:
        raise SetupError(
            f"candidates(obs, info) returned {found!r}, no phrases, where the episode goes on",
            "at least one phrase in every state that is acted in",
            "offer one such as 'wait', or let the environment end the episode",
        )
    if isinstance(found, Mapping):
        return Offer(tuple(found), tuple(found.values()))
    if isinstance(action_space, spaces.Discrete):
        raise SetupError(
            f"candidates(obs, info) returned the phrases {reprlib.repr(found)} for the actions {action_space!r}",
            "a mapping from each phrase to the number of its action: a place in a list says nothing about it",
            "return a dict such as {'go north': 2}",
        )
    return Offer(tuple(found), tuple(found))


def absent(action: int, offer: Offer, varies: bool) -> SetupError:
    """
    :param action: an index that no action of the present state has
    :param offer: what the present state offers
    :param varies: with the state
    :return: the error that says so
    """
    count = len(offer.actions)
    if count == 0:
        return SetupError(
            f"action {action} where the present state offers 0 phrases",
            "a state to act in",
            "call reset() first: at the start, and after the end of an episode",
        )
    return SetupError(
        f"action {action} where the present state offers {count} phrases {reprlib.repr(list(offer.phrases))}",
        f"an action from 0 to {count - 1}",
        "use action_masks(), or sample among these" if varies else "sample from action_space",
    )
