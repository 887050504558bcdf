"""Templates: the text around an observation text that makes it a prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from sb3_llm.chat import STAND_IN, render_up_to_reply, written_join
from sb3_llm.errors import SetupError
from sb3_llm.marks import Marks

DEFAULT_TEMPLATE = "{observation}\nAction:"
CHAT_EXAMPLE = {"user": "{observation}\nWhich action next: {phrases}?", "assistant": "Action:"}
TURNS = ("system", "user", "assistant")
OBSERVATION = "the observation text"  # a prompt's part

# Belongs to the continuation: a prompt that ends in a blank tokenises differently (research: lm-eval). It stands after
# a str template that ends in a newline too. A phrase without it would look more natural there, but GPT-2's word split
# cuts "\n\n" in two before a letter, so such a template would be refused there.
SEPARATOR = " "


class Template:
    """
    Makes prompts. What stands before ``{observation}`` is the same in every prompt: the shared prefix.

    :param text: the template; ``{observation}`` stands for the observation text and must occur once, ``{phrases}``,
        if it occurs, for the list of all phrases. Other braces are kept as they are
    :param phrases: the words of each action, in action order
    :param tokenizer: whose marks have no meaning in observation texts; without one, none is known
    :raises SetupError: if ``{observation}`` is missing or doubled, or the template ends in a blank
    """

    #: What stands between a prompt and a phrase.
    separator: str = SEPARATOR
    #: Whether the tokenizer adds its special tokens to a prompt; False if they stand in the prompt already.
    special_tokens: bool = True

    def __init__(self, text: str, phrases: Sequence[str], tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        if not isinstance(text, str) or text.count("{observation}") != 1:
            raise SetupError(
                f"the template {text!r}",
                "a str with {observation} in it exactly once",
                f"write it like the default, {DEFAULT_TEMPLATE!r}",
            )
        _require_no_blank_at_the_end(f"the template {text!r}", text)
        self.before, self.after = _halves(text, phrases)
        self.marks = None if tokenizer is None else Marks(tokenizer)

    def prompt(self, observation_text: str) -> str:
        """
        :param observation_text: the words that describe one observation
        :return: the prompt; the observation text stands in it unchanged, braces and all, but for the tokenizer's marks
        """
        return f"{self.before}{self.harmless(observation_text)}{self.after}"

    def harmless(self, text: str) -> str:
        """
        :param text: from the environment: an observation text, or a phrase that came with one
        :return: the same, in which the tokenizer's marks are plain text
        """
        return text if self.marks is None else self.marks.broken(text)

    def observation(self, prompt: str) -> str:
        """:return: the observation text of a prompt, or all of it if another template made it."""
        return self.parts(prompt).get(OBSERVATION, prompt)

    def parts(self, prompt: str) -> dict[str, str]:
        """
        Take a prompt apart, to say which part makes it long.

        :param prompt: a prompt
        :return: its parts by their names, in order; empty if another template made it
        """
        if not (prompt.startswith(self.before) and prompt[len(self.before) :].endswith(self.after)):
            return {}
        return {
            "the template before the observation": self.before,
            OBSERVATION: prompt[len(self.before) : len(prompt) - len(self.after)],
            "the template after it": self.after,
        }


class ChatTemplate(Template):
    """
    Makes prompts of the form an instruction-tuned model was trained on, with the tokenizer's own chat template.

    The chat template is rendered once and split at the observation text, so a prompt costs no rendering. It writes the
    special tokens itself, the BOS too; the tokenizer must not add them again.

    :param turns: ``{"user": ..., "system": ..., "assistant": ...}``, of which only "user" is needed. ``{observation}``
        must occur in "user" once, ``{phrases}`` may occur in each. "assistant" is the start of the reply, such as
        "Action:", which the phrases complete
    :param phrases: the words of each action, in action order
    :param tokenizer: tokenizer with a chat template
    :raises SetupError: if a turn is missing, unknown or without its text, the tokenizer has no chat template, or the
        chat template refuses, drops, changes or doubles a text
    """

    special_tokens = False

    def __init__(self, turns: Mapping[str, str], phrases: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        _require_turns(turns)
        before, after = _halves(turns["user"], phrases)
        texts = {"user": f"{before}{STAND_IN}{after}"}
        if "system" in turns:
            texts = {"system": _filled(turns["system"], phrases), **texts}
        messages = [{"role": role, "content": text} for role, text in texts.items()]
        rendered = render_up_to_reply(tokenizer, messages)
        head = rendered.rstrip(" \t")  # blanks at the end belong to the continuation, as in SEPARATOR
        join = written_join(tokenizer, messages, head)
        if join is None:
            join = _join_after(head)
        start = _filled(turns.get("assistant", ""), phrases)
        self.before, after = head.split(STAND_IN)
        self.after = f"{after}{join}{start}" if start else after
        self.separator = _join_after(start) if start else join
        self.marks = Marks(tokenizer)


def make_template(
    template: str | Mapping[str, str], phrases: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> Template:
    """
    :param template: the policy's keyword: a str as in :class:`Template`, or a dict as in :class:`ChatTemplate`
    :param phrases: the words of each action, in action order
    :param tokenizer: tokenizer of the language model
    :return: the template
    :raises SetupError: as the two classes
    """
    if isinstance(template, Mapping):
        return ChatTemplate(template, phrases, tokenizer)
    return Template(template, phrases, tokenizer)


def _filled(text: str, phrases: Sequence[str]) -> str:
    return text.replace("{phrases}", ", ".join(phrases))


def _halves(text: str, phrases: Sequence[str]) -> tuple[str, str]:
    """What stands before and after the observation, phrases filled in after the split: one may hold braces itself."""
    before, after = text.split("{observation}")
    return _filled(before, phrases), _filled(after, phrases)


def _join_after(text: str) -> str:
    """Nothing at the start of a line, where a reply begins with a word and no blank; else one blank."""
    return "" if text[-1:].isspace() else SEPARATOR


def _require_no_blank_at_the_end(what: str, text: str) -> None:
    if text != text.rstrip(" \t"):
        raise SetupError(
            f"{what}, which ends in a blank",
            "no blank at the end: the blank before a phrase is scored with the phrase",
            "take the blank away",
        )


def _require_turns(turns: Mapping[str, Any]) -> None:
    given, mend = f"the template {dict(turns)!r}", f"write it like {CHAT_EXAMPLE!r}"
    unknown = [name for name in turns if name not in TURNS]
    if unknown:
        raise SetupError(f"{given} with the key {unknown[0]!r}", f"only the keys {', '.join(map(repr, TURNS))}", mend)
    for name, text in turns.items():
        if not isinstance(text, str):
            raise SetupError(f"{given} with {text!r} as {name!r}", "a str for each key", mend)
    counts = {name: text.count("{observation}") for name, text in turns.items()}
    if counts.get("user") != 1 or sum(counts.values()) != 1:
        raise SetupError(given, 'the key "user", with {observation} in its text exactly once, and in no other', mend)
    _require_no_blank_at_the_end(f'the "assistant" text of {given}', turns.get("assistant", ""))
