"""What a look has found, as Markdown that TensorBoard and any editor show."""

import html
import re
from collections.abc import Sequence

from sb3_llm.diary.playing import Decision, Episode
from sb3_llm.printable import visible

Shares = Sequence[float]
#: Characters with a meaning in Markdown; the bar has no escape outside tables.
_MEANINGFUL = re.compile(r"([\\`*_\[\]#])")
#: What makes a line an item of a list, a rule, a headline's, or code, where it begins with it.
_BEGINNING = re.compile(r"^(?:\s+|[-+=~]|\d+[.)])")


def probe_page(
    prompt: str, phrases: Sequence[str], now: Shares, base: Shares | None = None, last: Shares | None = None
) -> str:
    """
    :param prompt: a probe, whole
    :param phrases: that can follow it
    :param now: their probabilities
    :param base: under the base model, if it was asked
    :param last: at the last look, if there was one
    :return: the prompt, and a table of its phrases
    """
    rows = [["phrase", "probability", "base model", "change since the last look"], ["---", "---:", "---:", "---:"]]
    for index, phrase in enumerate(phrases):
        before = "" if base is None else f"{base[index]:.3f}"
        change = "" if last is None else f"{round(now[index] - last[index], 3) + 0.0:+.3f}"
        rows.append([plain(phrase).replace("\n", " "), f"{now[index]:.3f}", before, change])
    return quoted(prompt) + "\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def episode_page(episode: Episode) -> str:
    """:return: every step of an episode: the text, what was chosen and how likely that was, reward, expert."""
    parts = [_summary(episode)]
    for number, decision in enumerate(episode.decisions, 1):
        parts += [f"Step {number}", quoted(decision.text), _choice(decision)]
    if episode.lost is not None:
        parts.append(f"The expert gave up: {plain(episode.lost)}")
    return "\n\n".join(parts)


def _summary(episode: Episode) -> str:
    ends = {None: "ended", True: "success", False: "no success"}
    end = ends[episode.success] if episode.ended else "broken off"
    told = f"Seed {episode.seed}: {end}, return {episode.total:.2f}, {len(episode.decisions)} steps."
    known = [each for each in episode.decisions if each.right]
    if known:
        told += f" The likeliest action was right in {sum(each.agrees for each in known)} of {len(known)}."
    return told


def _choice(decision: Decision) -> str:
    chosen, share = decision.phrases[decision.action], decision.probabilities[decision.action]
    told = f"**{plain(chosen)}** with probability {share:.3f}, reward {decision.reward:.2f}"
    right = [f"{plain(decision.phrases[each])} ({decision.probabilities[each]:.3f})" for each in sorted(decision.right)]
    return f"{told}. Expert: {' or '.join(right)}" if right else told


def quoted(text: str) -> str:
    """:return: a text, whole, as a quotation with its lines as they are."""
    lines = [_BEGINNING.sub(_as_entities, line) for line in plain(text).split("\n")]
    return "\n".join(f"> {line}{'  ' if line else ''}" for line in lines).rstrip()


def plain(text: str) -> str:
    """:return: Markdown that shows a text as it is: nothing in it is a mark, a table's bar, HTML, or invisible."""
    return _MEANINGFUL.sub(r"\\\1", html.escape(visible(text), quote=False)).replace("|", "&#124;")


def _as_entities(found: re.Match[str]) -> str:
    return "".join(sign if sign.isdigit() else f"&#{160 if sign.isspace() else ord(sign)};" for sign in found[0])
