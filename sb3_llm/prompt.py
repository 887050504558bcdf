"""Templates: the text around an observation text that makes it a prompt."""

from collections.abc import Sequence

from sb3_llm.errors import SetupError

DEFAULT_TEMPLATE = "{observation}\nAction:"
SEPARATOR = " "  # belongs to the continuation: a prompt that ends in a blank tokenises differently (research: lm-eval)


class Template:
    """
    Makes prompts. What stands before ``{observation}`` is the same in every prompt: the shared prefix.

    :param text: the template; ``{observation}`` stands for the observation text and must occur once, ``{phrases}``,
        if it occurs, for the list of all phrases. Other braces are kept as they are
    :param phrases: the words of each action, in action order
    :raises SetupError: if ``{observation}`` is missing or doubled, or the template ends in a blank
    """

    def __init__(self, text: str, phrases: Sequence[str]) -> None:
        if not isinstance(text, str) or text.count("{observation}") != 1:
            raise SetupError(
                f"the template {text!r}",
                "a str with {observation} in it exactly once",
                f"write it like the default, {DEFAULT_TEMPLATE!r}",
            )
        if text != text.rstrip(" \t"):
            raise SetupError(
                f"the template {text!r}, which ends in a blank",
                "no blank at the end: the blank before a phrase is scored with the phrase",
                "take the blank away",
            )
        listed = ", ".join(phrases)
        # Split first: a phrase may hold braces of its own.
        self.before, self.after = (part.replace("{phrases}", listed) for part in text.split("{observation}"))

    def prompt(self, observation_text: str) -> str:
        """
        :param observation_text: the words that describe one observation
        :return: the prompt; the observation text stands in it unchanged, braces and all
        """
        return f"{self.before}{observation_text}{self.after}"
