"""Prompts and continuations as token ids, cut apart where the model sees the cut."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import permutations

from transformers import PreTrainedTokenizerBase

from sb3_llm.errors import SetupError

END_MARK = "\n"


class PromptTokenizer:
    """
    Prompts to token ids, and the ids that each continuation adds to them.

    A continuation's ids are what it adds to the tokens of a prompt: ``enc(prompt + continuation)[len(enc(prompt)):]``.
    Encoding the two apart gives ids the model has never seen in that place (other word starts, a second BOS). The rule
    holds only where no token spans the join and the added ids are the same after every prompt, so both are verified
    here over real prompts.

    :param tokenizer: tokenizer of the language model
    :param continuations: exact strings scored after a prompt, in action order
    :param probe_prompts: prompts as the environment gives them, on which the rule is verified
    :param context: tokens the model can attend to, ``None`` for no limit
    :param memo_size: prompts whose ids are remembered
    :raises SetupError: if a token spans the join, a continuation's ids depend on the prompt, a continuation is empty or
        holds an unknown token, or two have the same ids
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        continuations: Sequence[str],
        probe_prompts: Sequence[str],
        context: int | None = None,
        memo_size: int = 8192,
    ) -> None:
        if not continuations or not probe_prompts:
            given = f"{len(continuations)} continuations and {len(probe_prompts)} probe prompts"
            raise SetupError(given, "at least one of each", "pass the phrases and a prompt of the environment")
        self.continuations = list(continuations)
        self._tokenizer = tokenizer
        self._suffix = _added_suffix(tokenizer, probe_prompts[0])
        self.continuation_ids = self._joint_ids(list(dict.fromkeys(probe_prompts)))
        self._require_distinct()
        self._longest = max(map(len, self.continuation_ids))
        self._context = context
        self._memo: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._memo_size = memo_size

    def encode(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        """
        Turn prompts into token ids, special tokens included, tokenising only those not seen lately.

        :param prompts: B prompts
        :return: B rows of ids, of different lengths
        :raises SetupError: if a prompt has no token, or leaves the longest continuation no room in the model's context
        """
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._memo]
        fresh = dict(zip(missing, self._tokenize(missing), strict=True)) if missing else {}
        for prompt, row in fresh.items():
            self._require_room(prompt, row)
        known = {prompt: self._memo[prompt] for prompt in prompts if prompt not in fresh} | fresh
        for prompt, row in known.items():
            self._memo[prompt] = row
            self._memo.move_to_end(prompt)
        while len(self._memo) > self._memo_size:
            self._memo.popitem(last=False)
        return [known[prompt] for prompt in prompts]

    def _tokenize(self, texts: list[str]) -> list[tuple[int, ...]]:
        # Padding and truncation may be switched on in a saved tokenizer.json, so both are set; verbose=False because
        # the tokenizer's own limit is often wrong, and encode() checks the model's.
        rows = self._tokenizer(texts, padding=False, truncation=False, verbose=False)["input_ids"]
        return [tuple(row[: len(row) - self._suffix]) for row in rows]

    def _joint_ids(self, prompts: list[str]) -> list[list[int]]:
        """Cut the joint encodings after each prompt, verifying that every prompt gives the same ids."""
        expected: list[tuple[int, ...]] = []
        for prompt in prompts:
            (head,) = self._tokenize([prompt])
            joint = self._tokenize([prompt + continuation for continuation in self.continuations])
            for continuation, row in zip(self.continuations, joint, strict=True):
                if not head or row[: len(head)] != head:
                    raise self._unstable(prompt, continuation, "a token that spans the join")
            added = [row[len(head) :] for row in joint]
            expected = expected or added
            for continuation, ids, usual in zip(self.continuations, added, expected, strict=True):
                if ids != usual:
                    what = f"tokens {self._pieces(ids)}, but {self._pieces(usual)} after another prompt"
                    raise self._unstable(prompt, continuation, what)
        return [list(ids) for ids in expected]

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        return list(self._tokenizer.convert_ids_to_tokens(list(ids)))

    def _unstable(self, prompt: str, continuation: str, what: str) -> SetupError:
        return SetupError(
            f"the prompt ending in {prompt[-30:]!r} followed by {continuation!r} gives {what}",
            "the prompt's own tokens, then the same tokens for the phrase after every prompt",
            'end the template in another character: a newline, or a non-space character such as ":"',
        )

    def _require_distinct(self) -> None:
        mend = "give every action its own phrase, in words this tokenizer knows"
        first: dict[tuple[int, ...], str] = {}
        for continuation, ids in zip(self.continuations, self.continuation_ids, strict=True):
            if not ids:
                raise SetupError(f"the continuation {continuation!r} has no tokens", "at least one token", mend)
            if self._tokenizer.unk_token_id in ids:
                given = f"the continuation {continuation!r} holds the unknown token, as {self._pieces(ids)}"
                raise SetupError(given, "tokens of the model's vocabulary", mend)
            if tuple(ids) in first:
                given = f"{first[tuple(ids)]!r} and {continuation!r} have the same tokens {self._pieces(ids)}"
                raise SetupError(given, "different tokens for each action", mend)
            first[tuple(ids)] = continuation

    def _require_room(self, prompt: str, row: Sequence[int]) -> None:
        start = " ".join(prompt.split()[:8])
        if not row:
            raise SetupError(f"the prompt {prompt!r} has no tokens", "at least one token", "put words in the template")
        if self._context is not None and len(row) + self._longest > self._context:
            raise SetupError(
                f"the prompt that starts {start!r} has {len(row)} tokens, and the longest phrase {self._longest}",
                f"at most {self._context} tokens together, the model's context",
                "shorten the observation text or the history, or take a model with a longer context",
            )


def resolve_continuations(
    tokenizer: PreTrainedTokenizerBase, phrases: Sequence[str], separator: str, prompts: Sequence[str]
) -> list[str]:
    """
    Make the exact strings that are scored after a prompt: separator + phrase, + end mark if one is needed.

    When the tokens of a phrase begin another's ("go", "go back"), the shorter can never be less probable than the
    longer. Then every phrase gets an end mark, a newline.

    :param tokenizer: tokenizer of the language model
    :param phrases: words of each action
    :param separator: what stands between prompt and phrase, mostly one space or nothing
    :param prompts: prompts as the environment gives them
    :return: continuations in action order
    :raises SetupError: if a phrase is empty, or no end mark keeps the phrases apart, or as :class:`PromptTokenizer`
    """
    blank = [index for index, phrase in enumerate(phrases) if not phrase.strip()]
    if blank:
        given = f"the phrase of action {blank[0]} is {phrases[blank[0]]!r}"
        raise SetupError(given, "at least one word", "give every action a phrase with words in it")
    plain = [separator + phrase for phrase in phrases]
    pair = _prefix_pair(PromptTokenizer(tokenizer, plain, prompts))
    if pair is None:
        return plain
    marked = [continuation + END_MARK for continuation in plain]
    given = f"the phrase {pair[0]!r} begins {pair[1]!r}, and the end mark {END_MARK!r} can't keep them apart"
    mend = "reword one of the two phrases so that neither begins the other"
    try:
        still = _prefix_pair(PromptTokenizer(tokenizer, marked, prompts))
    except SetupError as error:
        raise SetupError(f"{given} ({error.parts[0]})", "phrases that stay apart as tokens", mend) from error
    if still is not None:
        raise SetupError(given, "phrases that stay apart as tokens", mend)
    return marked


def _prefix_pair(tokens: PromptTokenizer) -> tuple[str, str] | None:
    """Return two continuations of which the first begins the second as token ids."""
    named = zip(tokens.continuations, tokens.continuation_ids, strict=True)
    for (short, short_ids), (long, long_ids) in permutations(named, 2):
        if long_ids[: len(short_ids)] == short_ids:
            return short, long
    return None


def _added_suffix(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Count the special tokens (EOS, SEP) a tokenizer appends: a continuation must follow the prompt, not an EOS."""
    whole = tokenizer(text, padding=False, truncation=False, verbose=False)["input_ids"]
    bare = tokenizer(text, padding=False, truncation=False, verbose=False, add_special_tokens=False)["input_ids"]
    starts = [start for start in range(len(whole) - len(bare) + 1) if whole[start : start + len(bare)] == bare]
    return len(whole) - len(bare) - starts[0] if starts and bare else 0
