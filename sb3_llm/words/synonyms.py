"""Other words for an action's phrase, from the language tables."""

from functools import lru_cache

from sb3_llm.words.languages import LANGUAGES


@lru_cache(maxsize=1024)
def synonyms_of(phrase: str) -> frozenset[str]:
    """
    :param phrase: of an action, in any language and wording
    :return: all other words that the tables have for actions that it is a word for, in all languages
    """
    pools = [(key, {*pool.train, *pool.held}) for each in LANGUAGES.values() for key, pool in each.phrases.items()]
    meant = {key for key, words in pools if phrase in words}
    return frozenset(word for key, words in pools if key in meant for word in words) - {phrase}
