"""Watching a language model while it is trained: collapse, drift, lost fluency, and updates that don't match."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback

from sb3_llm.alarms import KINDS, Limits, check_kinds, complaints
from sb3_llm.decisions import Decisions, asked_again, drift, entropy, ratio_error, read_rollout
from sb3_llm.fluency import ENGLISH, STORIES, encode_texts, perplexity
from sb3_llm.looking_on import require_language_model, undisturbed, whole
from sb3_llm.probes import Probes, ask_probes, check_probes, choose_probes, read_probes

ENOUGH = 32  # decisions to judge entropy and shares of actions by
ENOUGH_TO_COMPARE = 128  # to judge a change of entropy: fewer decisions differ by chance
BETWEEN_LOOKS = 512  # decisions at least, by default
TABLE_ROWS = 8  # a probe with more phrases is left out of SB3's table


class PolicyWatch(BaseCallback):
    """
    Watch a policy for collapse and drift: log what is seen, and warn with the likely cause and the mend.

    For PPO, A2C and TRPO with :class:`~sb3_llm.LLMPolicy`, and MaskablePPO with :class:`~sb3_llm.MaskableLLMPolicy`.
    It looks when a rollout ends, before the update, so that a look shows what all updates so far have done, and once
    more when training ends. Training goes on as it would without it, to the bit: no gradient, no random number and no
    remembered score of the policy is left behind. (What frozen layers make of a prompt, and what the base model says of
    it, is kept from the first time it is asked: with probes of your own and ``finetune="top:N"``, or with ``prior_kl``,
    results agree but for rounding.)

    Logged are

    - ``watch/entropy`` of the policy, mean over the rollout's decisions, in nats, and ``watch/entropy_share`` of the
      greatest possible with the actions that were allowed
    - ``watch/top_action_share`` of the most frequent phrase, among the decisions that had a choice
    - ``train/kl_to_base``: KL(pi || pi of the base model), mean over the rollout's decisions, in nats
    - ``watch/perplexity`` per token on ``texts``, and ``watch/perplexity_base`` of the base model
    - ``watch/first_epoch_ratio_error``: max |pi_now / pi_acting - 1| as the update is going to compute it
    - ``probe/<k>/<phrase>``: probabilities after the k-th probe prompt

    Where a rollout has fewer than 32 decisions, as many of the last rollouts count as make 32 together; until there
    are so many, entropy and actions are logged but not judged.

    At every step it looks for rewards and values that aren't finite; with ``stop`` these end training before they get
    into the weights. Where the weights are broken, the policy itself raises ``FloatingPointError``.

    :param every: rollouts from one look to the next; by default each, or as many as make 512 decisions
    :param probes: prompts to watch, as ``policy.render`` makes them, or (prompt, phrases) where phrases come with each
        observation; a number takes so many from the first rollout
    :param texts: to measure perplexity on; by default, for the embedded model, six stories in the form of its corpus,
        from levels and mazes the corpus leaves out, and for any other model four English paragraphs
    :param samples: decisions at most that the ratio is computed on
    :param compared: distinct prompts of a rollout at most that the base model is asked about, evenly out of all; each
        counts as often as it came. It is most of what a look costs
    :param compare_to_base: False spares the base model's memory and passes, and leaves out ``train/kl_to_base`` and
        ``watch/perplexity_base``
    :param stop: end training when something goes bad: True, or some of "entropy", "top_action", "kl", "perplexity",
        "ratio", "non_finite". ``learn`` then returns one step into the next rollout
    :param min_entropy_share: warn when entropy is below this share of its maximum, unless the base model's is too
    :param max_entropy_fall: warn when that share falls by more than this part of itself from one look to the next;
        judged on rollouts of 128 decisions or more
    :param max_top_action: warn when one action is more than this share of all choices
    :param max_kl: warn above, in nats; at 3 the base model did in one case of twenty what the policy always does
    :param max_perplexity: warn when perplexity is more than so many times the base model's
    :param max_ratio_error: warn above; by default 1e-3, and 0.2 with ``dtype="bfloat16"``
    :param verbose: as in SB3
    :raises SetupError: for arguments that can't be; when training starts, for a policy that is no language model
    """

    def __init__(
        self,
        every: int | None = None,
        probes: Probes = 3,
        texts: Sequence[str] | None = None,
        samples: int = 64,
        compared: int = 128,
        compare_to_base: bool = True,
        stop: bool | Collection[str] = False,
        min_entropy_share: float = 0.05,
        max_entropy_fall: float = 0.5,
        max_top_action: float = 0.95,
        max_kl: float = 3.0,
        max_perplexity: float = 1.5,
        max_ratio_error: float | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        levels = min_entropy_share, max_entropy_fall, max_top_action, max_kl, max_perplexity, max_ratio_error
        self.limits = Limits(*levels)
        self.every = None if every is None else whole("every", every)
        self.samples, self.compared = whole("samples", samples), whole("compared", compared)
        self.texts, self.compare_to_base, self.stop = texts, compare_to_base, check_kinds(stop)
        self.n_probes, self.probes = read_probes(probes)
        #: What the last look has found, by the names it is logged under.
        self.values: dict[str, float] = {}
        #: What is bad at present, by kind, in the words of the warning.
        self.bad: dict[str, str] = {}
        #: The kind that ended training, if one did.
        self.stopped_by: str | None = None
        self._start_anew()

    def _start_anew(self) -> None:
        """Forget what belongs to one call of ``learn``; a stop must not end the next one too."""
        self.bad, self.stopped_by = {}, None
        self._rollouts_left = 1  # to the next look
        self._window: list[Decisions] = []
        self._share_before: float | None = None  # of the greatest entropy, at the last look
        self._share_base: float | None = None
        self._perplexity_base: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Plain values only: ``learn`` hands over the model and SB3's variables again."""
        state = {name: value for name, value in self.__dict__.items() if name != "model"}
        return state | {"locals": {}, "globals": {}, "parent": None, "_window": []}

    # -- SB3's callback points -----------------------------------------------------------------------------------------

    def _init_callback(self) -> None:
        policy: Any = self.model.policy
        require_language_model("PolicyWatch", policy)
        check_probes(self.probes, policy)
        kwargs: dict[str, Any] = self.model.policy_kwargs or {}
        default = STORIES if kwargs.get("model", "embedded") == "embedded" else ENGLISH
        self._token_ids = encode_texts(default if self.texts is None else self.texts, policy.tokenizer, policy.lm)

    def _on_training_start(self) -> None:
        self._start_anew()

    def _on_step(self) -> bool:
        for name in ("rewards", "values", "log_probs"):
            numbers = torch.as_tensor(self.locals.get(name, 0.0))
            if not bool(numbers.isfinite().all()):
                self._complain("non_finite", f"the {name} of a step are {numbers.flatten().tolist()}")
        return self.stopped_by is None

    def _on_rollout_end(self) -> None:
        buffer: Any = self.model.rollout_buffer  # type: ignore[attr-defined]
        size = buffer.buffer_size * buffer.n_envs
        self._rollouts_left -= 1
        due = self._rollouts_left <= 0
        if due or size < ENOUGH:
            self._carefully(self._look if due else self._read)
        if due:
            self._rollouts_left = self.every or math.ceil(BETWEEN_LOOKS / size)

    def _on_training_end(self) -> None:
        if self._window:
            self._carefully(self._look_back)
            self.logger.dump(self.num_timesteps)  # SB3 itself never shows what comes after the last rollout

    # -- looking -------------------------------------------------------------------------------------------------------

    def _carefully(self, look: Callable[[], None]) -> None:
        with undisturbed(self.model.policy):
            try:
                look()
            except FloatingPointError as error:  # the policy's own, for scores that are not finite
                self._complain("non_finite", str(error).rstrip("."))

    def _read(self) -> None:
        """Take in a rollout; let the oldest go where the others are enough."""
        self._window.append(read_rollout(self.model))
        while sum(map(len, self._window[1:])) >= ENOUGH:
            self._window.pop(0)

    def _look(self) -> None:
        self._read()
        if not self.probes and self.n_probes:
            self.probes = choose_probes(list(self._window[-1].counts), self.n_probes)
            for place, (prompt, *_) in enumerate(self.probes):
                self.logger.record(f"probe/{place}", prompt, exclude=("stdout", "log", "csv"))
        chosen = sum((each.chosen for each in self._window), Counter())
        values = {"watch/top_action_share": max(chosen.values()) / chosen.total()} if chosen else {}
        values |= self._figures()
        self._report(values | {"watch/first_epoch_ratio_error": ratio_error(self.model, self.samples)})

    def _look_back(self) -> None:
        """Look at what the last update has made of the questions of the last rollout."""
        policy: Any = self.model.policy
        policy.set_training_mode(False)
        self._window = asked_again(self._window, policy)
        self._report(self._figures(), ended=True)

    def _figures(self) -> dict[str, float]:
        policy: Any = self.model.policy
        values = entropy(self._window)
        values["watch/perplexity"] = perplexity(policy.lm, self._token_ids)
        if self.compare_to_base:
            window = [each.some(self.compared) for each in self._window]
            base = asked_again(window, policy, base=True)
            values["train/kl_to_base"] = drift(window, base)
            self._share_base = entropy(base).get("watch/entropy_share")
            if self._perplexity_base is None:
                self._perplexity_base = perplexity(policy.base_lm(), self._token_ids)
            values["watch/perplexity_base"] = self._perplexity_base
        for place, answers in enumerate(ask_probes(self.probes, policy)):
            values |= {f"probe/{place}/{phrase}": share for phrase, share in answers.items()}
        return values

    # -- telling -------------------------------------------------------------------------------------------------------

    def _report(self, values: dict[str, float], ended: bool = False) -> None:
        self.values = values
        rows = Counter(name.rpartition("/")[0] for name in values)
        for name, value in values.items():
            crowded = name.startswith("probe/") and rows[name.rpartition("/")[0]] > TABLE_ROWS
            self.logger.record(name, value, exclude=("stdout", "log") if crowded else None)
        decisions = sum(map(len, self._window))
        judged = {name: value for name, value in values.items() if decisions >= ENOUGH or name not in NEED_ENOUGH}
        policy: Any = self.model.policy
        shares = self._share_before, self._share_base
        for kind, wrong in complaints(judged, self.limits, policy.lm.dtype, *shares):
            self._complain(kind, wrong, ended)
        self._share_before = judged.get("watch/entropy_share") if decisions >= ENOUGH_TO_COMPARE else None

    def _complain(self, kind: str, wrong: str | None, ended: bool = False) -> None:
        """Warn, once until it is well again, and end training if that is wanted."""
        if wrong is None:
            self.bad.pop(kind, None)
            return
        stops = kind in self.stop and not ended
        if stops and self.stopped_by is None:
            self.stopped_by = kind
        if kind not in self.bad:
            cause, mend = KINDS[kind]
            text = f"after {self.num_timesteps} steps, {wrong}. Likely cause: {cause}. To mend it: {mend}."
            self.bad[kind] = text
            warnings.warn(f"{text} Training ends here, as stop= asks." if stops else text, stacklevel=2)


NEED_ENOUGH = ("watch/entropy_share", "watch/top_action_share")
