"""The languages there are, and the axes along which their wordings differ."""

from collections.abc import Mapping

from sb3_llm.errors import SetupError
from sb3_llm.words.chinese import CHINESE
from sb3_llm.words.english import ENGLISH
from sb3_llm.words.pools import Language

AXES = ("phrases", "nouns", "colors", "missions", "templates")
LANGUAGES: Mapping[str, Language] = {"en": ENGLISH, "zh": CHINESE}


def language_of(language: str) -> Language:
    """
    :param language: "en" or "zh"
    :return: its words
    :raises SetupError: for another
    """
    if not isinstance(language, str) or language not in LANGUAGES:
        raise SetupError(f"language={language!r}", f"one of {list(LANGUAGES)}", "pass language='en'")
    return LANGUAGES[language]
