"""The policy: SB3's actor-critic contract, kept by a causal language model that scores phrases."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import Any, Unpack

import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sb3_llm import masks
from sb3_llm.base import kl_divergence
from sb3_llm.core import LanguageModelCore
from sb3_llm.errors import SetupError
from sb3_llm.scoring import PhraseScores
from sb3_llm.settings import Settings

Phrases = Sequence[Sequence[str]] | None

TRPO_HAS_NO = {
    "prior_kl": "leave it out, or use PPO: TRPO has no entropy bonus; its target_kl bounds each step instead",
    "value_warmup": "leave it out: TRPO trains the value head more often by itself (n_critic_updates)",
    "micro_batch": "leave it out, and collect fewer steps (n_steps): TRPO needs the whole rollout in one graph",
}


class ActorCritic(LanguageModelCore):
    """The methods that SB3's algorithms call."""

    action_dist: Any

    def _read_obs(self, obs: PyTorchObs) -> tuple[list[str], Phrases]:
        return self.render(obs), self._read_phrases(obs) if self._read_phrases else None

    def _distribution(self, scores: PhraseScores, action_masks: Any) -> Any:
        logits = self._logits(scores).float().clamp(min=torch.finfo(torch.float32).min)  # float64's lowest overflows
        # A copy, for SB3's distribution would keep the last graph alive, and a policy that holds one can't be copied.
        distribution = copy(self.action_dist).proba_distribution(action_logits=logits)
        if action_masks is not None:
            masks.within(action_masks, scores.present)  # its checks
            distribution.apply_masking(action_masks)
        return distribution

    def _score(self, prompts: list[str], phrases: Phrases, action_masks: Any = None) -> tuple[Any, Tensor]:
        """One pass of the language model: the distribution over actions, and values (B, 1), both in float32."""
        lm_learns = torch.is_grad_enabled() and not (self.training and self.warming_up)
        with torch.set_grad_enabled(lm_learns):
            scores = self._ask(prompts, phrases)
            distribution = self._distribution(scores, action_masks)
        features = scores.features.float()
        return distribution, self.value_net(features.detach() if self._settings["stop_value_gradient"] else features)

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
        prompts, phrases = self._read_obs(obs)
        distribution, values = self._score(prompts, phrases, action_masks)
        self._note_wanting(prompts, phrases)
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
        :return: values (B, 1), log-probabilities (B,) and entropies over the actions (B,), or with ``prior_kl`` minus
            the KL divergence from the base model
        """
        prompts, phrases = self._read_obs(obs)
        distribution, values = self._score(prompts, phrases, action_masks)
        # A (B, 1) log_prob would broadcast to (B, B) against SB3's old log-probabilities, without an error.
        return (
            values,
            distribution.log_prob(actions.flatten()),
            self._bonus(distribution, prompts, phrases, action_masks),
        )

    def _bonus(self, distribution: Any, prompts: list[str], phrases: Phrases, action_masks: Any) -> Tensor:
        """What SB3 weighs by ``ent_coef``. Entropy is, but for a constant, minus the KL from a uniform prior."""
        if not self._settings["prior_kl"]:
            return distribution.entropy()
        base = self._distribution(self._ask_base(prompts, phrases), action_masks)
        return -kl_divergence(distribution.distribution.logits, base.distribution.logits)

    def get_distribution(self, obs: PyTorchObs, action_masks: Any = None) -> Distribution:
        """
        :param obs: a batch of B observations
        :param action_masks: (B, A), as in :meth:`forward`
        :return: the distribution over actions
        """
        if torch.is_grad_enabled():
            self._require_trpo_can()
        prompts, phrases = self._read_obs(obs)
        with _twice_differentiable():
            distribution: Distribution = self._score(prompts, phrases, action_masks)[0]
        self._note_wanting(prompts, phrases)
        return distribution

    def _require_trpo_can(self) -> None:
        """Refuse what TRPO, which alone asks for a distribution with gradients, has no place for."""
        for name, instead in TRPO_HAS_NO.items():
            if self._settings[name] and (name != "value_warmup" or self.warming_up):
                raise SetupError(f"{name}={self._settings[name]!r} with TRPO", f"no {name}", instead)

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """
        :param obs: a batch of B observations
        :return: values (B, 1)
        """
        return self._score(*self._read_obs(obs))[1]


class LLMPolicy(ActorCritic, ActorCriticPolicy):  # type: ignore[misc]
    """
    A language model as the policy of PPO, A2C or TRPO: ``PPO(LLMPolicy, make_env("MiniGrid-DoorKey-8x8-v0"))``.

    The observation becomes a prompt, each action is a phrase, and the policy is the softmax of the phrases'
    log-probabilities under the model (SayCan, arXiv 2204.01691; GLAM, arXiv 2302.02662). The whole model is trained, if
    ``finetune`` does not say otherwise. ``parameters()`` and ``state_dict()`` hold what is trained; the rest is in
    ``lm``.

    :param observation_space: a :class:`TextSpace` (see :func:`make_env`), or numbers, which are told as numbers
    :param action_space: a :class:`PhraseSpace`, or ``Discrete``, whose phrases are then "action 0", "action 1", ...
    :param lr_schedule: SB3's learning-rate schedule
    :param model: "embedded" (ships in the package), a local folder, or a hub name
    :param revision: branch, tag or commit of a hub model
    :param finetune: "full" trains the whole language model; "lora" low-rank adapters (or a dict: ``{"mode": "lora",
        "rank": 8, "alpha": 16, "target_modules": ["q_proj"]}``); "top:N" its N upper layers, where what the layers
        below make of a prompt is computed once in a whole training; "head" the output head on frozen layers
    :param normalization: how a score becomes a logit: "sum", or divided by the phrase's "token" or "word" count
    :param temperature: logits are divided by it
    :param template: the text around ``{observation}`` in a prompt; may name all ``{phrases}``. For instruction-tuned
        models a dict ``{"user": ..., "system": ..., "assistant": ...}``, put into the model's own chat template
    :param dtype: of the model's weights: "float32", "bfloat16" or "float64"
    :param micro_batch: prompts per pass of an update; bounds its memory, for one more forward pass and
        less that prompts can share
    :param lm_lr_scale: the language model's learning rate, as a multiple of SB3's, which the value head has
    :param value_warmup: in that many first updates only the value head learns, which costs almost no time
    :param stop_value_gradient: the value loss trains the value head alone, and not the language model below it
    :param prior_kl: what SB3's ``ent_coef`` weighs is minus the KL divergence from the base model's policy, in place of
        the entropy
    :param forbid: phrases that are never said, each a regular expression for the whole phrase, or ``{"phrase": ...,
        "when": ...}`` with another one that has to be found in the observation text; their probability is exactly 0.
        ``policy.wanting`` tells how often they would have been said
    :param use_sde: not possible with phrases; SB3 passes False
    :param optimizer_class: ``torch.optim.Adam`` by default; A2C passes RMSprop
    :param optimizer_kwargs: of the optimizer, without the learning rate
    :raises SetupError: for spaces, phrases, a template or a model that can't be used; nothing has been trained then
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule | None = None,
        use_sde: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        if use_sde:
            raise SetupError("use_sde=True", "use_sde=False: phrases are discrete actions", "leave use_sde out")
        self._take_settings(observation_space, action_space, settings)
        super().__init__(
            observation_space,
            action_space,
            _require_gradients(lr_schedule),
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )


class MaskableLLMPolicy(ActorCritic, MaskableActorCriticPolicy):  # type: ignore[misc]
    """
    The same policy for ``sb3_contrib.MaskablePPO``: actions that the environment masks have probability exactly 0.

    :param observation_space: as in :class:`LLMPolicy`, like all other parameters
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule | None = None,
        use_sde: bool | None = None,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        if use_sde is not None:  # MaskablePPO does not pass it, the others do, and would ignore masks without a word
            raise SetupError("MaskableLLMPolicy", "an algorithm that knows masks: MaskablePPO", "use LLMPolicy here")
        self._take_settings(observation_space, action_space, settings)
        super().__init__(
            observation_space,
            action_space,
            _require_gradients(lr_schedule),
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )


def _require_gradients(lr_schedule: Schedule | None) -> Schedule:
    if lr_schedule is None:
        given = "a language model in an algorithm that gives no learning rate, such as ARS"
        raise SetupError(given, "an algorithm that follows the policy gradient", "use PPO, A2C or TRPO")
    return lr_schedule


def _twice_differentiable() -> AbstractContextManager[Any]:
    """TRPO differentiates twice, which the fused attention kernels can't; with gradients, only TRPO comes here."""
    return sdpa_kernel(SDPBackend.MATH) if torch.is_grad_enabled() else nullcontext()
