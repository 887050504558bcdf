"""A dialogue: find out which table a user wants, through a noisy ear, and book it in few turns."""

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_llm.envs.dialogue_user import N_SLOTS, SIZES, Reply, User, UserAct
from sb3_llm.envs.dialogue_words import N_WORDINGS, words_of
from sb3_llm.errors import SetupError

Observation = dict[str, Any]

ASK, CONFIRM, BOOK = 0, N_SLOTS, 2 * N_SLOTS  # the first act of each kind
RIGHT, WRONG, TURN = 1.0, -1.0, -0.05
#: From this noise on, asking "italian?" before booking is worth its turn: see DialogueEnv.expert_action.
CONFIRM_FROM = 0.03


class DialogueEnv(gym.Env[Observation, int]):
    """
    Book the table that a user wants: its food, area, people and day, 6, 5, 4 and 5 values.

    Observation: ``heard``, each slot's value by number from 1, 0 unknown, shape (4,); ``confirmed``, 0 or 1, shape
    (4,); the user's last turn: ``user_act``, a :class:`UserAct`, ``user_slot`` that it was about, from 1, ``denied``,
    the value it said no to, ``extra``, the slot told unasked, from 1, 0 for none of these, and ``wording``, which of
    three sentences it chose; ``system_act``, the last action + 1, 0 at the start; ``turn``, actions so far.

    As a Markov decision process, with e for ``noise``:

    - State: the user's goal g (one value for each slot), what is observed, and whether the user has changed its mind.
      At the start g is uniform over the 600 tables and nothing is known. The agent doesn't see g nor the change.
    - Actions 0 to 3: ask for a slot. 4 to 7: confirm a slot. 8: book the restaurant.
    - "Heard as told", below: the slot's value in g with probability 1 - e, else a uniform one of the other values.

    ===================  =====================================  ==============================================
    action               probability                            what happens
    ===================  =====================================  ==============================================
    ask or confirm       .03 if a slot is known and the mind    Change: a known slot, uniform, gets a new value
                         never changed, else 0; the rows        in g, uniform over the others; the slot is heard
                         below share the rest                   as told, unconfirmed. No answer to the action.
    ask for s            .75, or 1 if all others are known      s is heard as told, unconfirmed.
    ask for s            .25, or 0 if all others are known      The same, and one of the other unknown slots,
                                                                uniform, is heard as told too.
    confirm s, unknown   1                                      Nothing: the user is puzzled.
    confirm s, right     1 - e/3                                Yes: s is confirmed.
    confirm s, right     e/3                                    No: s is unknown.
    confirm s, wrong     e/3                                    Yes: s is confirmed.
    confirm s, wrong     (1 - e/3) x .3                         No: s is unknown.
    confirm s, wrong     (1 - e/3) x .7                         Correction: s is heard as told, unconfirmed, but
                                                                never as the value denied.
    book                 1                                      The dialogue ends.
    ===================  =====================================  ==============================================

    Each turn ``wording`` is uniform over 0, 1, 2. Reward: booking pays +1.0 if all four slots are heard as in g, else
    -1.0; any other action -0.05. Without a booking the dialogue is truncated after ``max_turns`` actions. Info after
    a step: ``is_success``.

    :param noise: e, how often a value is misheard, 0 to 0.5
    :param max_turns: actions in a dialogue, 5 or more: one for each slot, and the booking
    :param language: "en" or "zh": of ``phrases`` and the transcript
    :param render_mode: "ansi", the transcript so far, or None
    :raises SetupError: for any other argument
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 1}  # type: ignore[misc]

    def __init__(
        self,
        noise: float = 0.15,
        max_turns: int = 20,
        language: str = "en",
        render_mode: str | None = None,
    ) -> None:
        check_arguments(noise, max_turns, render_mode)
        self.words = words_of(language)
        self.noise, self.max_turns, self.language, self.render_mode = (
            float(noise),
            int(max_turns),
            language,
            render_mode,
        )
        self.phrases = self.words.phrases
        self.action_space = spaces.Discrete(len(self.phrases))  # type: ignore[assignment]  # gymnasium: Space[int]
        self.observation_space = observation_space(self.max_turns)
        self.transcript: list[str] = []
        self.over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """
        A new user comes.

        :param seed: restarts the stream of users
        :param options: None or {}
        :return: observation and info
        :raises SetupError: if there are options
        """
        super().reset(seed=seed)
        if options:
            raise SetupError(f"options={options!r}", "None: a dialogue has none", "leave options out")
        self.user = User(self.np_random, self.noise)
        self.heard, self.confirmed = [0] * N_SLOTS, [0] * N_SLOTS
        self.turn, self.system_act = 0, 0
        self.transcript, self.over = [], False
        return self._hear(Reply(UserAct.GREET)), {}

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """
        Say something to the user, and hear what comes back.

        :param action: index into ``phrases``
        :return: observation, reward, terminated (by booking), truncated (by ``max_turns``), info
        :raises SetupError: if the action is none, or there is no dialogue under way
        """
        self._check_step(action)
        self.turn, self.system_act = self.turn + 1, int(action) + 1
        self._note(1, self.phrases[int(action)])
        if action == BOOK:
            return self._book()
        kind = self.user.answer if action < CONFIRM else self.user.confirm
        observation = self._hear(kind(int(action) % N_SLOTS, self.heard))
        self.over = self.turn == self.max_turns
        return observation, TURN, False, self.over, {"is_success": False}

    def _book(self) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self.over, right = True, self.user.wants(self.heard)
        observation = self._hear(Reply(UserAct.GOODBYE))
        booked, wanted = self.words.table(self.heard), self.words.table(self.user.goal)
        self.transcript.append((self.words.right if right else self.words.wrong).format(booked=booked, wanted=wanted))
        return observation, RIGHT if right else WRONG, True, False, {"is_success": right}

    def _hear(self, reply: Reply) -> Observation:
        if reply.act == UserAct.YES:
            self._know(reply.slot, reply.value, 1)
        elif reply.act != UserAct.PUZZLED:
            self._know(reply.slot, reply.value, 0)
            self._know(reply.extra, reply.extra_value, 0)
        observation = {
            "heard": np.array(self.heard),
            "confirmed": np.array(self.confirmed, np.int8),
            "user_act": np.int64(reply.act),
            "user_slot": _number(reply.slot),
            "denied": np.int64(reply.denied),
            "extra": _number(reply.extra),
            "wording": np.int64(self.np_random.integers(N_WORDINGS)),
            "system_act": np.int64(self.system_act),
            "turn": np.int64(self.turn),
        }
        self._note(0, self.words.sentence(observation))
        return observation

    def _know(self, slot: int | None, value: int, confirmed: int) -> None:
        if slot is not None:
            self.heard[slot], self.confirmed[slot] = value, confirmed

    def _note(self, speaker: int, said: str) -> None:
        self.transcript.append(self.words.transcript.format(self.words.speakers[speaker], said))

    def _check_step(self, action: Any) -> None:
        if not self.action_space.contains(action):
            last = len(self.phrases) - 1
            raise SetupError(f"action={action!r}", f"0 to {last}", f"pass the index of one of {list(self.phrases)}")
        if self.over:
            raise SetupError("step() without a dialogue under way", "a reset() before", "call reset() first")

    def expert_action(self, obs: Mapping[str, Any]) -> int:
        """
        A good act, from the observation alone: the best of three rules by the mean return of 20,000 dialogues.

        It asks for what is unknown, then confirms, then books, and leaves confirming out where mishearing is rarer
        than :data:`CONFIRM_FROM`. Mean return and success, with standard errors of .003 to .007 and .001 to .004:

        =====  =====================  =====================  =====================
        noise  confirm at the end     confirm at once        never confirm
        =====  =====================  =====================  =====================
        .15    .478, .963             .477, .964             -.149, .511
        .03    .606, .999             .602, .998             .598, .885
        .02    .612, .999             .609, 1.000            .670, .921
        =====  =====================  =====================  =====================

        :param obs: this environment's observation
        :return: index into ``phrases``
        """
        return scripted_action(obs, "at the end" if self.noise >= CONFIRM_FROM else "never")

    def render(self) -> Any:
        """:return: the transcript so far, a line for each turn; None without a render mode."""
        if self.render_mode is None:
            env_id = self.spec.id if self.spec else "sb3_llm/Dialogue-v0"
            gym.logger.warn(
                "You are calling render method without specifying any render mode. You can specify the render_mode "
                f'at initialization, e.g. gym.make("{env_id}", render_mode="ansi")'
            )
            return None
        return "".join(f"{line}\n" for line in self.transcript)


def scripted_action(obs: Mapping[str, Any], confirm: str) -> int:
    """
    :param obs: an observation of the dialogue
    :param confirm: "at once", as soon as a slot is heard; "at the end", when nothing is unknown; or "never"
    :return: the index of the act that follows this rule
    """
    unknown = [ASK + slot for slot in range(N_SLOTS) if not obs["heard"][slot]]
    unsure = [CONFIRM + slot for slot in range(N_SLOTS) if obs["heard"][slot] and not obs["confirmed"][slot]]
    rules = {"at once": unsure + unknown, "at the end": unknown + unsure, "never": unknown}
    return (rules[confirm] or [BOOK])[0]


def observation_space(max_turns: int) -> spaces.Dict:
    """:return: the space of :class:`DialogueEnv`'s observations."""
    return spaces.Dict(
        {
            "heard": spaces.MultiDiscrete([size + 1 for size in SIZES]),
            "confirmed": spaces.MultiBinary(N_SLOTS),
            "user_act": spaces.Discrete(len(UserAct)),
            "user_slot": spaces.Discrete(N_SLOTS + 1),
            "denied": spaces.Discrete(max(SIZES) + 1),
            "extra": spaces.Discrete(N_SLOTS + 1),
            "wording": spaces.Discrete(N_WORDINGS),
            "system_act": spaces.Discrete(BOOK + 2),
            "turn": spaces.Discrete(max_turns + 1),
        }
    )


def check_arguments(noise: Any, max_turns: Any, render_mode: Any) -> None:
    """:raises SetupError: if :class:`DialogueEnv` can't take one of its arguments."""
    if isinstance(noise, bool) or not isinstance(noise, int | float | np.number) or not 0 <= noise <= 0.5:
        raise SetupError(f"noise={noise!r}", "how often a value is misheard, 0 to 0.5", "pass noise=0.15")
    if isinstance(max_turns, bool) or not isinstance(max_turns, int | np.integer) or max_turns <= N_SLOTS:
        expected = f"a whole number of turns, {N_SLOTS + 1} or more: one for each slot, and the booking"
        raise SetupError(f"max_turns={max_turns!r}", expected, "pass max_turns=20")
    if render_mode not in (None, "ansi"):
        raise SetupError(f"render_mode={render_mode!r}", "None or 'ansi'", "pass render_mode='ansi'")


def _number(slot: int | None) -> np.int64:
    return np.int64(0 if slot is None else slot + 1)
