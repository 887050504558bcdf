"""The dialogue's observation in words: what the user said, what is known, the turn, and the last act."""

# ruff: noqa: RUF001  (Chinese has a punctuation of its own)

from collections.abc import Mapping
from typing import Any

from sb3_llm.envs.dialogue_words import words_of

#: By language: all of it, a slot, "unknown", the mark of what is confirmed, "none".
PATTERNS = {
    "en": (
        "User: {said}. Known: {known}. Turn {turn}. Last act: {act}.",
        "{} {}{}",
        "unknown",
        " (confirmed)",
        "none",
    ),
    "zh": ("用户：{said}。已知：{known}。第{turn}轮。上一步：{act}。", "{}{}{}", "未知", "（已确认）", "无"),
}


def describe_dialogue(obs: Mapping[str, Any], language: str = "en") -> str:
    """
    Say how the dialogue stands. For Chinese, pass ``functools.partial(describe_dialogue, language="zh")``.

    :param obs: an observation of :class:`~sb3_llm.envs.dialogue.DialogueEnv`
    :param language: "en" or "zh"
    :return: the observation text, in one line
    :raises SetupError: for another language
    """
    words = words_of(language)
    pattern, slot_pattern, unknown, confirmed, none = PATTERNS[language]
    known = []
    for slot, value in enumerate(map(int, obs["heard"])):
        told = words.value(slot, value) if value else unknown
        known.append(slot_pattern.format(words.slots[slot].name, told, confirmed if obs["confirmed"][slot] else ""))
    last = int(obs["system_act"])
    return pattern.format(
        said=words.sentence(obs),
        known=words.comma.join(known),
        turn=int(obs["turn"]),
        act=words.phrases[last - 1] if last else none,
    )
