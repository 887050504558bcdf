"""Facts into sentences, by a template."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from sb3_llm.words.facts import Free, MazePast, MazeView, Passage, Past, Rows, Spot, Thing, View
from sb3_llm.words.template import Sentences, Template

UNCOUNTABLE = ("lava", "unseen", "floor", "empty")  # said without an article


class Speaker(Protocol):
    """Who knows the words for things, actions and directions."""

    def thing(self, thing: Thing) -> str:
        """:return: a thing's words."""

    def turn(self, turn: str) -> str:
        """:return: the words of an action that was taken."""

    def heading(self, compass: str) -> str:
        """:return: the word for a direction of the compass."""


class Teller:
    """
    Tells rooms and mazes.

    :param template: how
    :param speaker: in which words
    """

    def __init__(self, template: Template, speaker: Speaker) -> None:
        self.template, self.speaker = template, speaker

    def room(self, mission: str, view: View, past: Past | None) -> str:
        """:return: the whole observation text of a MiniGrid world; the mission is in the speaker's words already."""
        template = self.template
        sections = {
            "goal": template.goal.format(mission),
            "facing": template.facing.format(self.speaker.heading(view.compass)) if view.compass else "",
            "carrying": self._carrying(view.carrying),
            "free": template.comma.join(map(self._free, view.free)),
            "seen": template.seen.format(self._spots(view.seen)) if view.seen else template.seen_nothing,
            "floor": "" if view.floor is None else template.floor.format(self._floor(view.floor)),
            **({} if past is None else self._past(past)),
        }
        return self._join(template.room, sections)

    def maze(self, mission: str, view: MazeView, past: MazePast | None) -> str:
        """:return: the whole observation text of a maze."""
        template = self.template
        goal = template.maze_goal.format(mission=mission, offset=self._offset(view.south, view.east))
        sections = {
            "goal": template.goal.format(goal),
            "at": template.at.format(row=template.number(view.row), column=template.number(view.column)),
            "passages": self._passages(view.passages),
            **({} if past is None else self._maze_past(past)),
        }
        return self._join(template.maze, sections)

    def goal(self, mission: str) -> str:
        """:return: the sentence that tells a room's mission, which is in the speaker's words already."""
        return self.template.sentence(self.template.goal.format(mission))

    def named(self, thing: Thing) -> str:
        """:return: a thing's words, with an article if the template has them."""
        words = self.speaker.thing(thing)
        if not self.template.articles or thing.kind in UNCOUNTABLE:
            return words
        return with_article(words)

    def spot(self, spot: Spot) -> str:
        """:return: a thing, where it is, and the way there."""
        return self.template.spot.format(
            thing=self.named(spot.thing), place=self.place(spot.ahead, spot.right), way=self._way(spot)
        )

    def place(self, ahead: int, right: int) -> str:
        """:return: a place relative to the agent."""
        places, words = self.template.places, []
        if ahead:
            words.append(places["ahead" if ahead > 0 else "behind"].format(self.template.steps(abs(ahead))))
        if right:
            words.append(places["right" if right > 0 else "left"].format(self.template.steps(abs(right))))
        return self.template.place_glue.join(words) or places["here"]

    def _join(self, sentences: Sentences, sections: Mapping[str, str]) -> str:
        template = self.template
        texts = (template.glue.join(filter(None, map(sections.get, names))) for names in sentences)
        return template.space.join(template.sentence(text) for text in texts if text)

    def _carrying(self, thing: Thing | None) -> str:
        if thing is None:
            return self.template.empty_hands
        words = self.speaker.thing(thing)
        return self.template.carrying.format(thing=words, a=with_article(words))

    def _free(self, free: Free) -> str:
        template = self.template
        pattern = template.free if free.end is None else template.free_end
        end = "" if free.end is None else self.named(free.end)
        return pattern.format(way=template.ways[free.direction], steps=template.steps(free.steps), end=end)

    def _spots(self, spots: Iterable[Spot]) -> str:
        return self.template.comma.join(map(self.spot, spots))

    def _way(self, spot: Spot) -> str:
        template = self.template
        if spot.way is None:
            return ""
        if spot.way == "here":
            return template.reach
        way = template.first_moves[spot.way]
        if spot.moves is None:
            return template.way_alone.format(way=way)
        return template.way.format(way=way, moves=template.steps(spot.moves))

    def _floor(self, floor: Sequence[Rows]) -> str:
        return self.template.semicolon.join(map(self._rectangle, floor))

    def _rectangle(self, rows: Rows) -> str:
        template = self.template
        pattern = template.row[rows.first != rows.last]
        left, right = self._side(rows.left), self._side(rows.right)
        return template.rectangle.format(
            rows=pattern.format(first=template.number(rows.first), last=template.number(rows.last)),
            columns=left if rows.left == rows.right else template.span.format(left=left, right=right),
        )

    def _side(self, right: int) -> str:
        side = self.template.side
        if right == 0:
            return side["middle"]
        return side["right" if right > 0 else "left"].format(self.template.number(abs(right)))

    def _past(self, past: Past) -> dict[str, str]:
        template = self.template
        deeds = (template.deed.format(done=template.done[done], thing=self.named(thing)) for done, thing in past.deeds)
        return {
            "before": _filled(template.before, self._spots(past.before)),
            "untried": _filled(template.untried, self._spots(past.untried)),
            "deeds": _filled(template.deeds, template.comma.join(deeds)),
            **self._lately(past.turns, past.visits),
        }

    def _maze_past(self, past: MazePast) -> dict[str, str]:
        template = self.template
        trails = (
            template.trail.format(
                compass=self.speaker.heading(trail.direction), steps=template.trail_steps(trail.steps)
            )
            for trail in past.untried
        )
        untried = _filled(template.untried, template.comma.join(trails))
        return {"untried": untried, **self._lately(past.turns, past.visits)}

    def _lately(self, turns: Sequence[str], visits: int | None) -> dict[str, str]:
        """How often the agent was here, and its last actions."""
        template = self.template
        told = template.comma.join(map(self.speaker.turn, turns)) or template.none
        pattern = template.last[len(turns) > 1 or visits is not None]
        here = "" if visits is None else template.visits[visits != 1].format(template.times(visits))
        return {"visits": here, "turns": pattern.format(told)}

    def _offset(self, south: int, east: int) -> str:
        template, words = self.template, []
        for value, positive, negative in ((south, "south", "north"), (east, "east", "west")):
            if value:
                compass = self.speaker.heading(positive if value > 0 else negative)
                words.append(template.offset.format(steps=template.steps(abs(value)), compass=compass))
        return template.offset_glue.join(words) or template.places["here"]

    def _passages(self, passages: Iterable[Passage]) -> str:
        template = self.template
        texts: Iterable[str] = map(self._passage, passages)
        if template.passages_glue == template.stop + template.space and template.capital:
            texts = (text[:1].upper() + text[1:] for text in texts)
        return template.passages_glue.join(texts)

    def _passage(self, passage: Passage) -> str:
        template, compass = self.template, self.speaker.heading(passage.direction)
        if passage.kind == "wall":
            return template.wall.format(compass=compass, wall=self.speaker.thing(Thing("wall")))
        if passage.kind == "goal":
            return template.to_goal.format(compass=compass, goal=self.speaker.thing(Thing("goal")))
        exits = template.exits_glue.join(map(self.speaker.heading, passage.exits)) or template.dead_end
        return template.to_exits[passage.walked].format(compass=compass, exits=exits)


def with_article(words: str) -> str:
    """:return: English words after "a" or "an"."""
    return f"{'an' if words[:1].lower() in 'aeiou' else 'a'} {words}"


def _filled(pattern: str, text: str) -> str:
    return pattern.format(text) if text else ""
