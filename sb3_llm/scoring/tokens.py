"""Prompts and continuations as token ids, cut apart where the model sees the cut."""

from collections.abc import Callable, Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from sb3_llm.errors import SetupError
from sb3_llm.scoring.continuations import Continuations, JointIds, resolve
from sb3_llm.scoring.encoding import Encoder, TokenIds
from sb3_llm.scoring.lru import LruMemo
from sb3_llm.scoring.rows import Row


class PromptTokenizer:
    """
    Prompts to token ids, and phrases to the ids they add to those of a prompt.

    Tokenises only what it has not seen lately: prompts, phrases and lists of phrases come back all the time.

    :param tokenizer: tokenizer of the language model
    :param probe_prompts: prompts as the environment gives them, on which every phrase is verified
    :param separator: what stands between prompt and phrase, mostly one space or nothing
    :param context: tokens the model can attend to, ``None`` for no limit
    :param special_tokens: False if the prompts hold their special tokens themselves, as those of chat templates do
    :param parts: from a prompt to its named parts, of which the error on a prompt that is too long names the longest
    :param memo_size: prompts, phrases and lists of phrases that are remembered
    :raises SetupError: if there is no probe prompt
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        probe_prompts: Sequence[str],
        separator: str = " ",
        context: int | None = None,
        special_tokens: bool = True,
        parts: Callable[[str], Mapping[str, str]] | None = None,
        memo_size: int = 8192,
    ) -> None:
        if not probe_prompts:
            raise SetupError("0 probe prompts", "at least one", "pass a prompt of the environment")
        self._encoder = Encoder(tokenizer, probe_prompts[0], special_tokens)
        self._joint = JointIds(self._encoder, list(dict.fromkeys(probe_prompts)), memo_size)
        self._separator, self._context, self._parts = separator, context, parts
        self._prompts: LruMemo[str, TokenIds] = LruMemo(memo_size)
        self._lists: LruMemo[tuple[str, ...], Continuations] = LruMemo(memo_size)

    def continuations(self, phrases: Sequence[str], prompt: str | None = None) -> Continuations:
        """
        Make of phrases what is scored after a prompt.

        :param phrases: the words of each action, for all states or for this one
        :param prompt: the prompt they stand after, if at hand: phrases that are new are verified on it too
        :return: their texts, ids and numbers of words, in the same order
        :raises SetupError: if a phrase is empty, has no token, an unknown token or the same tokens as another; if a
            token spans the join with a prompt, or the ids depend on the prompt; if one phrase begins another and no
            end mark keeps them apart
        """

        def learn(missing: list[tuple[str, ...]]) -> list[Continuations]:
            return [resolve(each, self._separator, self._joint, prompt) for each in missing]

        return self._lists.recall([tuple(phrases)], learn)[0]

    def encode(self, prompts: Sequence[str]) -> list[TokenIds]:
        """
        Turn prompts into token ids, special tokens at the start included.

        :param prompts: B prompts
        :return: B rows of ids, of different lengths
        :raises SetupError: if a prompt has no token
        """
        return self._prompts.recall(prompts, self._encode)

    def rows(self, prompts: Sequence[str], continuations: Sequence[Continuations]) -> list[Row]:
        """
        Put prompts and what may follow them into the form that scorers read.

        :param prompts: B prompts
        :param continuations: one list for each prompt
        :return: B rows
        :raises SetupError: if a prompt has no token, or leaves its longest continuation no room in the model's context
        """
        rows = [Row(ids, each.ids) for ids, each in zip(self.encode(prompts), continuations, strict=True)]
        if self._context is not None:
            for prompt, row in zip(prompts, rows, strict=True):
                self._require_room(prompt, row, self._context)
        return rows

    def _encode(self, prompts: list[str]) -> list[TokenIds]:
        rows = self._encoder.encode(prompts)
        for prompt, row in zip(prompts, rows, strict=True):
            if not row:
                given = f"the prompt {prompt!r} has no tokens"
                raise SetupError(given, "at least one token", "put words in the template")
        return rows

    def _require_room(self, prompt: str, row: Row, context: int) -> None:
        longest = max(map(len, row.continuations))
        if len(row.prompt) + longest <= context:
            return
        raise SetupError(
            f"the prompt that starts {_start(prompt)!r} has {len(row.prompt)} tokens, {self._longest_part(prompt)}, "
            f"and the longest phrase has {longest}",
            f"at most {context} tokens together, the model's context",
            "shorten the observation text, the history or the template, or take a model with a longer context",
        )

    def _longest_part(self, prompt: str) -> str:
        named = list(self._parts(prompt).items()) if self._parts else []
        named = named or [("the line", line) for line in prompt.split("\n")]
        lengths = self._encoder.lengths([text for _, text in named])
        count = max(lengths)
        name, text = named[lengths.index(count)]
        return f"of which {count} are {name} that starts {_start(text)!r}"


def _start(text: str) -> str:
    return " ".join(text.split()[:8])
