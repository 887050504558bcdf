"""A mission's tree into words."""

from collections.abc import Callable, Mapping

from sb3_llm.words.facts import Thing
from sb3_llm.words.mission import Both, Desc, GoTo, Match, Mission, Open, PickUp, PutNext, Reach, Roam, Then
from sb3_llm.words.pools import Language
from sb3_llm.words.telling import with_article


class Requests:
    """
    Says missions.

    :param language: how things at a location are said
    :param patterns: by meaning
    :param name: says a thing
    """

    def __init__(self, language: Language, patterns: Mapping[str, str], name: Callable[[Thing], str]) -> None:
        self.language, self.patterns, self.name = language, patterns, name

    def say(self, mission: Mission) -> str:
        """:return: the mission as an imperative."""
        say, patterns = self.say, self.patterns
        match mission:
            case Then(first, second):
                return patterns["then"].format(x=say(first), y=say(second))
            case Both(first, second):
                return patterns["both"].format(x=say(first), y=say(second))
            case Reach():
                return self._reach(mission)
            case PutNext(first, second):
                return patterns["put next"].format(a=self.desc(first), b=self.desc(second))
            case Match():
                return patterns["match"].format(object=self.name(Thing("object")))
            case Roam():
                return patterns["roam"]
        return self._act(mission)

    def desc(self, desc: Desc) -> str:
        """:return: a thing as a mission names it."""
        words = self.name(Thing(desc.kind or "object", desc.color))
        if "article" in self.patterns:
            words = with_article(words) if self.patterns["article"] == "a" else f"the {words}"
        if desc.location is None:
            return words
        return self.language.located.format(thing=words, location=self.patterns[desc.location])

    def _act(self, mission: GoTo | PickUp | Open) -> str:
        meaning = {GoTo: "go to", PickUp: "pick up", Open: "open"}[type(mission)]
        text = self.patterns[meaning].format(a=self.desc(mission.desc))
        if isinstance(mission, GoTo) and mission.done:
            return self.patterns["say done"].format(go=text)
        return text

    def _reach(self, mission: Reach) -> str:
        kinds = {kind: self.name(Thing(kind)) for kind in ("goal", "lava", "opening", "key", "door")}
        reach = self.patterns["reach"].format(**kinds)
        if mission.hint is None:
            return reach
        color, room = (self._color(color) for color in mission.colors) if mission.colors else ("", "")
        return self.patterns[mission.hint].format(reach=reach, color=color, room=room, **kinds)

    def _color(self, color: str) -> str:
        """A color by itself: what a thing of that color is called more than one without."""
        plain, colored = self.name(Thing("key")), self.name(Thing("key", color))
        return colored.removesuffix(self.language.thing_glue + plain)
