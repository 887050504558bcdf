"""A tokenizer as the scorers use it: texts to ids, in batches, with nothing added behind them."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

TokenIds = tuple[int, ...]


class Encoder:
    """
    Texts to token ids, without padding, truncation, or the special tokens a tokenizer appends.

    :param tokenizer: tokenizer of the language model
    :param sample: a text on which the appended special tokens are counted
    :param special_tokens: False if the texts hold their special tokens themselves, as those of chat templates do
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sample: str, special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._special_tokens = special_tokens
        self._suffix = _appended(self._ids([sample], special_tokens)[0], self._ids([sample], False)[0])

    def encode(self, texts: list[str]) -> list[TokenIds]:
        """
        :param texts: any number of texts
        :return: their ids, special tokens at the start included
        """
        return [tuple(row[: len(row) - self._suffix]) for row in self._ids(texts, self._special_tokens)]

    def lengths(self, texts: list[str]) -> list[int]:
        """
        :param texts: parts of prompts
        :return: how many tokens each has, no special tokens added
        """
        return [len(row) for row in self._ids(texts, False)]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """
        :param ids: token ids
        :return: the tokens as the vocabulary writes them, for messages
        """
        return list(self._tokenizer.convert_ids_to_tokens(list(ids)))

    def has_unknown(self, ids: Sequence[int]) -> bool:
        """
        :param ids: token ids
        :return: whether the unknown token is among them
        """
        return self._tokenizer.unk_token_id in ids

    def _ids(self, texts: list[str], special_tokens: bool) -> list[list[int]]:
        # Padding and truncation may be switched on in a saved tokenizer.json, so both are set; verbose=False because
        # the tokenizer's own limit is often wrong, and PromptTokenizer.rows checks the model's.
        encoded = self._tokenizer(
            texts, add_special_tokens=special_tokens, padding=False, truncation=False, verbose=False
        )
        return encoded["input_ids"]


def _appended(whole: Sequence[int], bare: Sequence[int]) -> int:
    """Count the special tokens (EOS, SEP) behind a text: a continuation must follow the prompt, not an EOS."""
    starts = [start for start in range(len(whole) - len(bare) + 1) if whole[start : start + len(bare)] == bare]
    return len(whole) - len(bare) - starts[0] if starts and bare else 0
