"""What phrases add to the tokens of a prompt: cut from joint encodings, verified, and kept apart."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from sb3_llm.errors import SetupError
from sb3_llm.scoring.encoding import Encoder, TokenIds
from sb3_llm.scoring.lru import LruMemo

END_MARK = "\n"


class Continuations(NamedTuple):
    """
    One list of phrases as it is scored after a prompt. Hashable.

    :param texts: separator + phrase, + end mark if one is needed
    :param ids: what each adds to the tokens of a prompt
    :param word_counts: words of each phrase, one or more
    """

    texts: tuple[str, ...]
    ids: tuple[TokenIds, ...]
    word_counts: tuple[int, ...]


class JointIds:
    """
    The ids that a text adds to the tokens of a prompt: ``enc(prompt + text)[len(enc(prompt)):]``.

    Encoding the two apart gives ids the model has never seen in that place (other word starts, a second BOS). The rule
    holds only where no token spans the join and the added ids are the same after every prompt, so both are verified
    here, once for each text: prompts of one template end alike, which is all that a text's first token can depend on.

    :param encoder: the tokenizer
    :param prompts: prompts as the environment gives them, on which every text is verified
    :param memo_size: texts whose ids are remembered
    """

    def __init__(self, encoder: Encoder, prompts: list[str], memo_size: int) -> None:
        self._encoder = encoder
        self._heads = dict(zip(prompts, encoder.encode(prompts), strict=True))
        self._memo: LruMemo[str, TokenIds] = LruMemo(memo_size)

    def of(self, texts: Sequence[str], prompt: str | None = None) -> tuple[TokenIds, ...]:
        """
        :param texts: continuations
        :param prompt: one more prompt on which texts that are new are verified
        :return: ids that each adds
        :raises SetupError: if a token spans the join, or the ids depend on the prompt, are none, or hold the unknown
            token
        """
        return tuple(self._memo.recall(texts, lambda fresh: self._cut(fresh, prompt)))

    def _cut(self, texts: list[str], prompt: str | None) -> list[TokenIds]:
        new = [] if prompt is None or prompt in self._heads else [prompt]
        pairs = [head + text for head in [*self._heads, *new] for text in texts]
        joint = iter(self._encoder.encode([*new, *pairs]))  # one call: most of its cost is the same for any number
        heads = self._heads | {each: next(joint) for each in new}
        added = [[self._added(head, ids, text, next(joint)) for text in texts] for head, ids in heads.items()]
        for head, rows in zip(heads, added, strict=True):
            for text, ids, usual in zip(texts, rows, added[0], strict=True):
                if ids != usual:
                    what = f"tokens {self._encoder.pieces(ids)}, but {self._encoder.pieces(usual)} after another prompt"
                    raise _unstable(head, text, what)
        for text, ids in zip(texts, added[0], strict=True):
            self._require_known(text, ids)
        return added[0]

    def _added(self, prompt: str, head: TokenIds, text: str, joint: TokenIds) -> TokenIds:
        if not head or joint[: len(head)] != head:
            raise _unstable(prompt, text, "a token that spans the join")
        return joint[len(head) :]

    def _require_known(self, text: str, ids: TokenIds) -> None:
        mend = "give every action its own phrase, in words this tokenizer knows"
        if not ids:
            raise SetupError(f"the continuation {text!r} has no tokens", "at least one token", mend)
        if self._encoder.has_unknown(ids):
            given = f"the continuation {text!r} holds the unknown token, as {self._encoder.pieces(ids)}"
            raise SetupError(given, "tokens of the model's vocabulary", mend)


def resolve(phrases: Sequence[str], separator: str, joint: JointIds, prompt: str | None = None) -> Continuations:
    """
    Make of phrases what is scored after a prompt: separator + phrase, + end mark if one is needed.

    When the tokens of a phrase begin another's ("go", "go back"), the shorter can never be less probable than the
    longer. Then every phrase of the list gets an end mark, a newline.

    :param phrases: words of each action
    :param separator: what stands between prompt and phrase, mostly one space or nothing
    :param joint: what texts add to the tokens of a prompt
    :param prompt: one more prompt on which phrases that are new are verified
    :return: continuations in the order of the phrases
    :raises SetupError: if there is no phrase, one is empty, two have the same tokens, or no end mark keeps them apart;
        or as :meth:`JointIds.of`
    """
    words = _word_counts(phrases)
    plain = Continuations(tuple(separator + phrase for phrase in phrases), (), words)
    plain = plain._replace(ids=joint.of(plain.texts, prompt))
    pair = _prefix_pair(plain)
    if pair is None:
        return plain
    given = f"the phrase {pair[0]!r} begins {pair[1]!r}, and the end mark {END_MARK!r} can't keep them apart"
    expected, mend = (
        "phrases that stay apart as tokens",
        "reword one of the two phrases so that neither begins the other",
    )
    texts = tuple(text + END_MARK for text in plain.texts)
    try:
        marked = Continuations(texts, joint.of(texts, prompt), words)
        still = _prefix_pair(marked)
    except SetupError as error:
        raise SetupError(f"{given} ({error.parts[0]})", expected, mend) from error
    if still is not None:
        raise SetupError(given, expected, mend)
    return marked


def _word_counts(phrases: Sequence[str]) -> tuple[int, ...]:
    if not phrases:
        raise SetupError("a list of 0 phrases", "one phrase for each action", "pass the phrases of the environment")
    counts = tuple(len(phrase.split()) for phrase in phrases)
    if not all(counts):
        place = counts.index(0)
        given = f"the phrase of action {place} is {phrases[place]!r}"
        raise SetupError(given, "at least one word", "give every action a phrase with words in it")
    return counts


def _prefix_pair(continuations: Continuations) -> tuple[str, str] | None:
    """Return two texts of which the first begins the second as token ids; two with the same ids are an error."""
    # In order of their ids, whatever a sequence begins stands right behind it: no need to compare all pairs.
    ordered = sorted(zip(continuations.ids, continuations.texts, strict=True))
    found = None
    for (short, first), (long, second) in pairwise(ordered):
        if short == long:
            mend = "give every action its own phrase, in words this tokenizer knows"
            raise SetupError(f"{first!r} and {second!r} have the same tokens", "different tokens for each action", mend)
        if found is None and long[: len(short)] == short:
            found = first, second
    return found


def _unstable(prompt: str, text: str, what: str) -> SetupError:
    return SetupError(
        f"the prompt ending in {prompt[-30:]!r} followed by {text!r} gives {what}",
        "the prompt's own tokens, then the same tokens for the phrase after every prompt",
        'end the template (of a chat template, the "assistant" text) in another character: a newline, or a non-space '
        'character such as ":"',
    )
