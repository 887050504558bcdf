"""A tokenizer's own marks, such as "<|im_start|>", kept from having their meaning in texts of an environment."""

import re
import unicodedata

from transformers import PreTrainedTokenizerBase

# Tokens that are no special ones and mark something all the same: "<think>", "[TOOL_CALLS]".
LIKE_A_MARK = re.compile(r"<.+>|\[.+\]", re.DOTALL)


class Marks:
    """
    Finds what a tokenizer would read as one of its marks instead of as text, and breaks it with a blank.

    Otherwise a text of the environment could end the prompt, or begin a turn of a chat (prompt injection).

    :param tokenizer: tokenizer of the language model
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = tokenizer.added_tokens_decoder.values()
        known = {str(each.content) for each in added if each.special or LIKE_A_MARK.fullmatch(each.content)}
        known |= set(tokenizer.all_special_tokens)
        marks = sorted((mark for mark in known if len(mark) > 1), key=lambda mark: (-len(mark), mark))
        self._starts = {sign for mark in marks for sign in (mark[0].lower(), mark[0].upper())}
        self._marks = re.compile("|".join(map(re.escape, marks)), re.IGNORECASE) if marks else None

    def broken(self, text: str) -> str:
        """
        :param text: from the environment
        :return: the same without marks: "< |im_start|>". A text whose marks hide in other forms of their characters is
            brought into the usual form (NFKC) first, as a tokenizer may do too. Twice is the same as once
        """
        if self._marks is None:
            return text
        if not text.isascii():
            usual = unicodedata.normalize("NFKC", text)
            text = usual if self._marks.search(usual) else text
        while self._starts.intersection(text) and self._marks.search(text):
            text = self._marks.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        return text
