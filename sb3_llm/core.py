"""The language model inside a policy: how it is built and trained, and what is saved of it."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any, cast

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_llm.asked import AskedPolicy
from sb3_llm.checkpoint import BASE_MODEL, fingerprint, require_same_base, require_same_entries, without_frozen
from sb3_llm.errors import WrongAlgorithm
from sb3_llm.finetune import freeze, read_tuning
from sb3_llm.forbid import Rules, Wanting
from sb3_llm.language_model import context_length, load_language_model
from sb3_llm.observations import longest_text, phrase_reader, sample_texts, text_reader
from sb3_llm.optim import StepHooks, count_parameters, parameter_groups
from sb3_llm.prior import report_prior
from sb3_llm.prompt import Template, make_template
from sb3_llm.scoring import PhraseScorer, PromptTokenizer, Row, choose_scorer
from sb3_llm.settings import Settings, complete
from sb3_llm.wrappers import count_actions, default_phrases

log = logging.getLogger("sb3_llm")

#: Attributes that other algorithms ask a policy for, the algorithm, and what to use in its place.
FOREIGN = {
    "lstm_actor": ("RecurrentPPO", "PPO: what is past stands in the text, as make_env's history= tells it"),
    "quantile_net": ("QRDQN", "PPO or A2C: a language model's policy is a distribution, not values of actions"),
    "q_net": ("DQN", "PPO or A2C: a language model's policy is a distribution, not values of actions"),
    "actor": ("SAC, TD3 or another off-policy algorithm", "PPO or A2C: phrases are discrete actions"),
}


class LanguageModelCore(AskedPolicy):
    """
    The language model and the value head of a policy, whatever algorithm trains them.

    ``ActorCriticPolicy.__init__`` builds layers of its own and initialises every ``nn.Linear`` orthogonally, which
    would overwrite a language model handed to it as a features extractor; overriding ``_build`` goes round that.
    """

    value_net: nn.Module

    def _take_settings(self, observation_space: spaces.Space, action_space: spaces.Space, given: Settings) -> None:
        """Check the arguments before SB3 sees them: plain values only, as no module may be set before its __init__."""
        self._settings = settings = complete(given)
        self._slots = count_actions(action_space)
        self._read = text_reader(observation_space)
        self._read_phrases = phrase_reader(observation_space)
        known = getattr(action_space, "phrases", default_phrases(self._slots))
        self.phrases = [] if self._read_phrases else list(known)
        if isinstance(settings["template"], str):
            Template(settings["template"], self.phrases)  # its checks, before a model is loaded
        self._rules = Rules(settings["forbid"], self.phrases)
        self.wanting = Wanting()

    def _build(self, lr_schedule: Schedule) -> None:
        settings = self._settings
        self.lm, self.tokenizer = load_language_model(settings["model"], settings["revision"], settings["dtype"])
        named = {name: settings[name] for name in ("model", "revision", "finetune")}
        self._identity = {**named, "sha256": fingerprint(self.lm, self.tokenizer)}
        frozen_layers = freeze(self.lm, settings["finetune"])
        self._template = make_template(settings["template"], self.phrases, self.tokenizer)
        self._build_scorer(frozen_layers)
        width = cast(nn.Linear, self.lm.get_output_embeddings()).weight.shape[1]
        self.value_net = _value_head(width)
        groups = parameter_groups(self.lm, self.value_net, settings["lm_lr_scale"])
        self.optimizer = self.optimizer_class(groups, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]
        self._steps = StepHooks()
        self._steps.attach(self.optimizer)
        self._base = None
        log.info(self.what_trains())
        if settings["dtype"] == "bfloat16" and read_tuning(settings["finetune"]).mode != "lora":
            _warn_of_lost_steps()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._steps.attach(self.optimizer)  # torch drops an optimizer's hooks in a deepcopy

    def __getattr__(self, name: str) -> Any:
        if name in FOREIGN:
            algorithm, instead = FOREIGN[name]
            given = f"{type(self).__name__} in {algorithm}"
            raise WrongAlgorithm(given, "PPO, A2C or TRPO, or MaskablePPO with MaskableLLMPolicy", f"use {instead}")
        return super().__getattr__(name)

    def _build_scorer(self, frozen_layers: int) -> None:
        """Choose the scoring route on probe prompts, and say what policy the prior makes of them."""
        probes = [self._template.prompt(text) for text in sample_texts(self.observation_space)]
        tokens = PromptTokenizer(
            self.tokenizer,
            probes,
            self._template.separator,
            context_length(self.lm.config),
            self._template.special_tokens,
            self._template.parts,
        )
        self._fixed = tokens.continuations(self.phrases) if self.phrases else None
        self.continuations = list(self._fixed.texts) if self._fixed else []
        known = self._fixed or tokens.continuations(default_phrases(min(self._slots, 3)))
        longest = self._template.prompt(longest_text(self.observation_space))
        room = (context_length(self.lm.config) or len(longest)) - max(map(len, known.ids))
        self._probes = [Row(ids[:room], known.ids) for ids in tokens.encode([*probes, longest])]
        scorer, self.scoring_difference = choose_scorer(self.lm, self._probes, frozen_layers)
        self._scorer = PhraseScorer(self.lm, tokens, scorer, self._settings["micro_batch"])
        if self._fixed:
            with torch.no_grad():
                report_prior(self.phrases, self.action_log_probs(probes), self._fixed)

    # -- training ------------------------------------------------------------------------------------------------------

    def set_training_mode(self, mode: bool) -> None:
        """
        :param mode: True before SB3 updates the weights: what was remembered of them is forgotten then
        """
        super().set_training_mode(mode)
        if mode:
            self._scorer.clear()
            self._steps.begin_update()

    @property
    def warming_up(self) -> bool:
        """Whether the update that goes on moves the value head alone."""
        return max(self._steps.update_number(self.optimizer), 1) <= self._settings["value_warmup"]

    def what_trains(self) -> str:
        """:return: of each group of parameters, how many are trained and which share of all that is"""
        counts = count_parameters(self.lm, self.value_net)
        total = sum(each for _, each in counts.values())
        told = [f"{name} {trained:,} of {of:,}" for name, (trained, of) in counts.items()]
        trained = sum(each for each, _ in counts.values())
        finetune = self._settings["finetune"]
        return f"finetune={finetune!r} trains {'; '.join(told)}: {trained:,} parameters, {trained / total:.2%} of all"

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        """
        Name what is trained, and nothing else; ``policy.lm.named_parameters()`` has all of the language model.

        TRPO asks each of these for its gradient, and takes those with "value" in their names for the critic's: GPT-NeoX
        calls its attention "query_key_value", which is told as "query_key_val".

        :return: an iterator over pairs of name and parameter
        """
        for name, parameter in super().named_parameters(*args, **kwargs):
            if parameter.requires_grad:
                yield (name.replace("value", "val") if "lm." in name else name), parameter

    # -- saving --------------------------------------------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """:return: what is trained, and "base_model", which names the rest; without weights that never change"""
        return without_frozen(super().state_dict(*args, **kwargs), self.lm, self._identity)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """
        :param state_dict: as :meth:`state_dict` returns it
        :param strict: refuse absent or unknown entries
        :param assign: as torch's
        :raises SetupError: if it belongs to another base model, revision or tuning mode; nothing is loaded then
        """
        require_same_base(state_dict, self._identity)
        if strict:
            require_same_entries(state_dict, self.state_dict())
        known = {name: tensor for name, tensor in state_dict.items() if name != BASE_MODEL}
        return super().load_state_dict(known, strict=False, assign=assign)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
            **self._settings,
        }


def _value_head(width: int) -> nn.Sequential:
    """A small network on the hidden state of the last prompt token; it says 0 until it has learnt something."""
    last = nn.Linear(width, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), last)


def _warn_of_lost_steps() -> None:
    warnings.warn(
        "bfloat16 weights have 8 bits of precision: steps smaller than 1/256 of a weight are lost in rounding, and at "
        'usual learning rates most are. Train adapters, which are float32 (finetune="lora"), or set dtype="float32".',
        stacklevel=4,
    )
