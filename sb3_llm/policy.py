"""The policy: SB3's actor-critic contract, kept by a causal language model that scores phrases."""

import reprlib
from collections.abc import Sequence
from copy import copy
from typing import Any, cast

import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from sb3_llm.errors import SetupError
from sb3_llm.finetune import freeze
from sb3_llm.language_model import context_length, load_language_model
from sb3_llm.observations import longest_text, phrase_reader, sample_texts, text_reader
from sb3_llm.prior import report_prior
from sb3_llm.prompt import DEFAULT_TEMPLATE, Template, make_template
from sb3_llm.scoring import (
    Continuations,
    PhraseScorer,
    PhraseScores,
    PromptTokenizer,
    Row,
    action_logits,
    choose_scorer,
)
from sb3_llm.wrappers import count_actions, default_phrases

#: Every keyword of the constructor, which is all that ``policy.load`` needs beside the spaces and the weights.
SETTINGS = (
    "model",
    "revision",
    "finetune",
    "normalization",
    "temperature",
    "template",
    "dtype",
    "micro_batch",
)


class LanguageModelCore(BasePolicy):
    """
    What the policies for all algorithms share.

    ``ActorCriticPolicy.__init__`` builds layers of its own and initialises every ``nn.Linear`` orthogonally, which
    would overwrite a language model handed to it as a features extractor; overriding ``_build`` and the methods below
    goes round all of that.
    """

    action_dist: Any
    value_net: nn.Module

    def _take_settings(self, observation_space: spaces.Space, action_space: spaces.Space, **settings: Any) -> None:
        """Check the arguments before SB3 sees them: plain values only, as no module may be set before its __init__."""
        self._slots = count_actions(action_space)
        self._read = text_reader(observation_space)
        self._read_phrases = phrase_reader(observation_space)
        known = getattr(action_space, "phrases", default_phrases(self._slots))
        self.phrases = [] if self._read_phrases else list(known)
        self._settings = {name: settings[name] for name in SETTINGS}
        action_logits(torch.zeros(1, 1), [1], [1], settings["normalization"], settings["temperature"])  # its checks
        if isinstance(settings["template"], str):
            Template(settings["template"], self.phrases)  # its checks, before a model is loaded

    def _build(self, lr_schedule: Schedule) -> None:
        settings = self._settings
        self.lm, self.tokenizer = load_language_model(settings["model"], settings["revision"], settings["dtype"])
        frozen_layers = freeze(self.lm, settings["finetune"])
        self._template = make_template(settings["template"], self.phrases, self.tokenizer)
        self._build_scorer(frozen_layers)
        width = cast(nn.Linear, self.lm.get_output_embeddings()).weight.shape[1]
        self.value_net = _value_head(width)
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        self.optimizer = self.optimizer_class(trainable, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

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
        rows = [Row(ids[:room], known.ids) for ids in tokens.encode([*probes, longest])]
        scorer, self.scoring_difference = choose_scorer(self.lm, rows, frozen_layers)
        self._scorer = PhraseScorer(self.lm, tokens, scorer, self._settings["micro_batch"])
        if self._fixed:
            with torch.no_grad():
                report_prior(self.phrases, self.action_log_probs(probes), self._fixed)

    def set_training_mode(self, mode: bool) -> None:
        """
        :param mode: True before SB3 updates the weights: what was remembered of them is forgotten then
        """
        super().set_training_mode(mode)
        if mode:
            self._scorer.clear()

    def clear_memo(self) -> None:
        """Forget remembered scores. Only needed after weights were changed in a way that leaves no trace."""
        self._scorer.clear()

    @property
    def scoring_route(self) -> str:
        """The route the start-up probe chose: "packed", or "cache", "rows", "reference" where only that was right."""
        return self._scorer.scorer.name

    def render(self, obs: PyTorchObs) -> list[str]:
        """
        :param obs: a batch of B observations, as tensors or arrays
        :return: B prompts
        """
        return [self._template.prompt(text) for text in self._read(obs)]

    def sequence_log_probs(self, prompts: list[str], phrases: Sequence[Sequence[str]] | None = None) -> Tensor:
        """
        :param prompts: B prompts
        :param phrases: of each prompt, where phrases come with each observation; else the policy's own
        :return: scores (B, A): the log-probability of each continuation, summed over its tokens; differentiable; 0 in a
            slot without a phrase
        """
        return self._ask(prompts, phrases).log_probs

    def action_log_probs(self, prompts: list[str], phrases: Sequence[Sequence[str]] | None = None) -> Tensor:
        """
        :param prompts: B prompts
        :param phrases: of each prompt, where phrases come with each observation; else the policy's own
        :return: (B, A) log pi(a | prompt), normalised over the actions; differentiable; minus infinity in a slot
            without a phrase
        """
        scores = self._ask(prompts, phrases)
        return self._logits(scores).log_softmax(dim=-1).masked_fill(~scores.present, -torch.inf)

    def _ask(self, prompts: list[str], phrases: Sequence[Sequence[str]] | None) -> PhraseScores:
        return self._scorer.score(prompts, self._continuations(prompts, phrases), self._slots)

    def _continuations(self, prompts: list[str], phrases: Sequence[Sequence[str]] | None) -> list[Continuations]:
        if (phrases is None) == (self._fixed is None):
            expected = "no phrases= for a policy that has its own" if self._fixed else "phrases= of each prompt"
            given = f"phrases={reprlib.repr(phrases)} for {reprlib.repr(self.phrases)}"
            raise SetupError(given, expected, "see policy.phrases: it is empty where they come with each observation")
        if phrases is None:
            return [cast(Continuations, self._fixed)] * len(prompts)
        tokens = self._scorer.tokens
        return [tokens.continuations(each, prompt) for each, prompt in zip(phrases, prompts, strict=True)]

    def _logits(self, scores: PhraseScores) -> Tensor:
        how = self._settings["normalization"], self._settings["temperature"]
        logits = action_logits(scores.log_probs, scores.token_counts, scores.word_counts, *how)
        # Not minus infinity, whose gradients in a KL divergence are NaN; the probability is exactly 0 all the same.
        return logits.masked_fill(~scores.present, torch.finfo(logits.dtype).min)

    def _score(self, obs: PyTorchObs, action_masks: Any = None) -> tuple[Any, Tensor]:
        """One pass of the language model: the distribution over actions, and values (B, 1), both in float32."""
        scores = self._ask(self.render(obs), self._read_phrases(obs) if self._read_phrases else None)
        logits = self._logits(scores).float().clamp(min=torch.finfo(torch.float32).min)  # float64's lowest overflows
        # A copy, for SB3's distribution would keep the last graph alive, and a policy that holds one can't be copied.
        distribution = copy(self.action_dist).proba_distribution(action_logits=logits)
        if action_masks is not None:
            distribution.apply_masking(_checked_masks(action_masks, scores.present))
        return distribution, self.value_net(scores.features.float())

    def forward(
        self, obs: PyTorchObs, deterministic: bool = False, action_masks: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Act, for rollouts.

        :param obs: a batch of B observations
        :param deterministic: the likeliest action instead of a sampled one
        :param action_masks: (B, A), true where an action is allowed; for MaskablePPO
        :return: actions (B,), values (B, 1) and log-probabilities (B,), the latter two float32
        """
        distribution, values = self._score(obs, action_masks)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(
        self, obs: PyTorchObs, actions: Tensor, action_masks: Any = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """
        Score actions taken before, with gradients.

        :param obs: a batch of B observations
        :param actions: (B,) or (B, 1)
        :param action_masks: (B, A), as in :meth:`forward`
        :return: values (B, 1), log-probabilities (B,) and entropies over the actions (B,)
        """
        distribution, values = self._score(obs, action_masks)
        # A (B, 1) log_prob would broadcast to (B, B) against SB3's old log-probabilities, without an error.
        return values, distribution.log_prob(actions.flatten()), distribution.entropy()

    def get_distribution(self, obs: PyTorchObs, action_masks: Any = None) -> Distribution:
        """
        :param obs: a batch of B observations
        :param action_masks: (B, A), as in :meth:`forward`
        :return: the distribution over actions
        """
        return self._score(obs, action_masks)[0]

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """
        :param obs: a batch of B observations
        :return: values (B, 1)
        """
        return self._score(obs)[1]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
            **self._settings,
        }


class LLMPolicy(LanguageModelCore, ActorCriticPolicy):  # type: ignore[misc]
    """
    A language model as the policy of PPO, A2C or TRPO: ``PPO(LLMPolicy, make_env("MiniGrid-DoorKey-8x8-v0"))``.

    The observation becomes a prompt, each action is a phrase, and the policy is the softmax of the phrases'
    log-probabilities under the model (SayCan, arXiv 2204.01691; GLAM, arXiv 2302.02662). The whole model is trained, if
    ``finetune`` does not say otherwise.

    :param observation_space: a :class:`TextSpace` (see :func:`make_env`), or numbers, which are told as numbers
    :param action_space: a :class:`PhraseSpace`, or ``Discrete``, whose phrases are then "action 0", "action 1", ...
    :param lr_schedule: SB3's learning-rate schedule
    :param model: "embedded" (ships in the package), a local folder, or a hub name
    :param revision: branch, tag or commit of a hub model
    :param finetune: "full" trains the whole language model, "top:N" its N upper layers; what the layers below make of a
        prompt is then computed once in a whole training
    :param normalization: how a score becomes a logit: "sum", or divided by the phrase's "token" or "word" count
    :param temperature: logits are divided by it
    :param template: the text around ``{observation}`` in a prompt; may name all ``{phrases}``. For instruction-tuned
        models a dict ``{"user": ..., "system": ..., "assistant": ...}``, put into the model's own chat template
    :param dtype: of the model's weights: "float32", "bfloat16" or "float64"
    :param micro_batch: prompts per pass of an update; bounds its memory, for one more forward pass and
        less that prompts can share
    :param use_sde: not possible with phrases; SB3 passes False
    :param optimizer_class: ``torch.optim.Adam`` by default; A2C passes RMSprop
    :param optimizer_kwargs: of the optimizer, without the learning rate
    :raises SetupError: for spaces, phrases, a template or a model that can't be used; nothing has been trained then
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        model: str = "embedded",
        revision: str | None = None,
        finetune: str = "full",
        normalization: str = "sum",
        temperature: float = 1.0,
        template: str | dict[str, str] = DEFAULT_TEMPLATE,
        dtype: str = "float32",
        micro_batch: int | None = None,
        use_sde: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if use_sde:
            raise SetupError("use_sde=True", "use_sde=False: phrases are discrete actions", "leave use_sde out")
        self._take_settings(
            observation_space,
            action_space,
            model=model,
            revision=revision,
            finetune=finetune,
            normalization=normalization,
            temperature=temperature,
            template=template,
            dtype=dtype,
            micro_batch=micro_batch,
        )
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )


class MaskableLLMPolicy(LanguageModelCore, MaskableActorCriticPolicy):  # type: ignore[misc]
    """
    The same policy for ``sb3_contrib.MaskablePPO``: actions that the environment masks have probability exactly 0.

    :param observation_space: as in :class:`LLMPolicy`, like all other parameters
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        model: str = "embedded",
        revision: str | None = None,
        finetune: str = "full",
        normalization: str = "sum",
        temperature: float = 1.0,
        template: str | dict[str, str] = DEFAULT_TEMPLATE,
        dtype: str = "float32",
        micro_batch: int | None = None,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self._take_settings(
            observation_space,
            action_space,
            model=model,
            revision=revision,
            finetune=finetune,
            normalization=normalization,
            temperature=temperature,
            template=template,
            dtype=dtype,
            micro_batch=micro_batch,
        )
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )


def _value_head(width: int) -> nn.Sequential:
    """A small network on the hidden state of the last prompt token; it says 0 until it has learnt something."""
    last = nn.Linear(width, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), last)


def _checked_masks(action_masks: Any, present: Tensor) -> Any:
    """SB3-Contrib turns a row without a valid action into a uniform choice among invalid ones, silently."""
    valid = torch.as_tensor(action_masks, device=present.device).bool().reshape(present.shape) & present
    if not bool(valid.any(dim=-1).all()):
        raise SetupError("an action mask with no valid action", "at least one in every state", "mend action_masks()")
    return action_masks
