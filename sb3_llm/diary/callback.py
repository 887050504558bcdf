"""The callback that keeps a diary of a training."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sb3_llm.demos.recording import MAX_STEPS
from sb3_llm.diary.checks import checked_world, maker, require_matplotlib
from sb3_llm.diary.guides import AUTO, Expert, check_expert, find_guide
from sb3_llm.diary.maps import MazeMap, Shares, map_maze
from sb3_llm.diary.pages import episode_page
from sb3_llm.diary.playing import Episode, Make, MakeGuide, agreement, play
from sb3_llm.diary.probing import Probing
from sb3_llm.diary.writing import Look, require_outlet, write
from sb3_llm.looking_on import apart, require_language_model, whole
from sb3_llm.probes import Probes

SEED = 30_000  # of the first episode: far from those of training, evaluation, and sb3-llm watch


class Diary(BaseCallback):
    """
    Write down, every so many updates, what a policy says and does: ``model.learn(50_000, callback=Diary(env_id))``.

    For PPO, A2C and TRPO with :class:`~sb3_llm.LLMPolicy`, and MaskablePPO with :class:`~sb3_llm.MaskableLLMPolicy`.
    It looks when training begins, after each ``every``-th update, and when training ends. Training goes on as it would
    without it, to the bit: it plays in worlds of its own, and leaves no random number drawn and no score remembered.

    Written to TensorBoard, if the algorithm has a ``tensorboard_log``, and to ``folder`` as Markdown and PNG files, are

    - ``diary/probe/<k>``: a prompt, the probability of each phrase after it, the base model's, and the change since the
      last look
    - ``diary/episode/<k>``: an episode of the sampled policy: each observation text, whole, the phrase that was chosen
      with its probability, reward, and what the expert would have done. It has the same seed at every look
    - ``diary/agreement``: in which share of these episodes' decisions the likeliest action is one of the expert's, and
      ``diary/agreement_probability``: the mean probability of the expert's actions
    - ``diary/maze``, in this project's mazes: both over the cells of the first episode's maze, as a figure. The agent
      comes to each cell from the start by the shortest way; where it has a heading, the mean of all four is shown.
      ``diary/maze_agreement`` and ``diary/maze_probability`` are the means over cells
    - ``diary/probes``: the probes' probabilities over the steps, as a figure

    The numbers also go to SB3's other log formats.

    :param make: an environment's id, or a callable that makes a :class:`~sb3_llm.TextObservation` with the text and the
        phrases of the training's environment. For SB3's environments in other processes too it is called in this one
    :param every: updates from one look to the next; A2C updates every five steps, so it takes a larger number
    :param episodes: how many are played at each look
    :param seed: of the first episode; the others have seed + 1, seed + 2, ...
    :param probes: prompts to watch, as ``policy.render`` makes them, or (prompt, phrases) where phrases come with each
        observation; a number takes so many from the first look's episodes
    :param expert: who knows the right actions: "shortest path" to a maze's goal, which knows the whole maze; "planner",
        for MiniGrid and BabyAI worlds and mazes, which knows what the agent knows; "bot", the BabyAI bot, which knows
        the whole level; a callable from the environment to the index of the right action, or of all that are right;
        None; by default the shortest path in mazes, the planner in MiniGrid and BabyAI, and none elsewhere
    :param figures: draw figures, for which matplotlib is needed
    :param folder: where pages go too, one for each look
    :param max_steps: where an episode that does not end is broken off
    :param compare_to_base: False spares the base model's memory and passes
    :param verbose: as in SB3
    :raises SetupError: for arguments that can't be; when training starts, for a policy that is no language model, an
        environment with other text or phrases than the training's, an expert that knows nothing of it, or if there is
        nowhere to write
    """

    def __init__(
        self,
        make: str | Make,
        every: int = 10,
        episodes: int = 2,
        seed: int = SEED,
        probes: Probes = 3,
        expert: Expert = AUTO,
        figures: bool = True,
        folder: str | Path | None = None,
        max_steps: int = MAX_STEPS,
        compare_to_base: bool = True,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.make = maker(make)
        self.every, self.episodes = whole("every", every), whole("episodes", episodes)
        self.seed, self.max_steps = whole("seed", seed, least=0), whole("max_steps", max_steps)
        self.probing, self.compare_to_base = Probing(probes), compare_to_base
        self.expert, self.figures = check_expert(expert), figures
        self.folder = None if folder is None else Path(folder)
        if figures:
            require_matplotlib()
        #: What the last look has found, by the names it is logged under.
        self.values: dict[str, float] = {}
        #: The episodes of the last look.
        self.played: list[Episode] = []
        #: Agreement in each cell of a maze, at the last look.
        self.shares: Shares | None = None
        self._start_anew()

    def _start_anew(self) -> None:
        """Forget what belongs to one call of ``learn``."""
        self.updates = 0
        self._looked_after: int | None = None  # so many updates
        self._make_guide: MakeGuide = None
        self._map: MazeMap | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Plain values only: ``learn`` hands over the model and SB3's variables again."""
        state = {name: value for name, value in self.__dict__.items() if name != "model"}
        return state | {"locals": {}, "globals": {}, "parent": None, "_make_guide": None, "_map": None}

    # -- SB3's callback points -----------------------------------------------------------------------------------------

    def _init_callback(self) -> None:
        policy: Any = self.model.policy
        require_language_model("Diary", policy)
        require_outlet(self.logger, self.folder)
        self._start_anew()
        with apart(policy, False):
            world = checked_world("Diary", self.make, self.model)
            world.reset(seed=self.seed)
            self._make_guide = find_guide(self.expert, world)
            world.close()
            self._map = map_maze(policy, self.make, self._make_guide, self.seed)

    def _on_training_start(self) -> None:
        self.probing.begin(self.model.policy, self.num_timesteps)
        self._look()

    def _on_rollout_start(self) -> None:
        if self.updates % self.every == 0 and self._looked_after != self.updates:
            self._look()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.updates += 1  # it comes next

    def _on_training_end(self) -> None:
        if self._looked_after != self.updates:
            self._look()
            self.logger.dump(self.num_timesteps)  # SB3 itself never shows what comes after the last rollout

    # -- looking -------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._looked_after = self.updates
        policy: Any = self.model.policy
        look = Look(self.num_timesteps, self.updates)
        with apart(policy, self.compare_to_base):
            try:
                self._play(policy, look)
                self._probe(policy, look)
                self._ask_map(policy, look)
            except FloatingPointError as error:  # the policy's own, for scores that are not finite
                warnings.warn(f"No entry in the diary after {self.num_timesteps} steps: {error}", stacklevel=2)
                return
        self.values = look.values
        write(look, self.logger, self.folder)

    def _play(self, policy: Any, look: Look) -> None:
        seeds = range(self.seed, self.seed + self.episodes)
        self.played = play(policy, self.make, self._make_guide, seeds, self.max_steps)
        decisions = [each for episode in self.played for each in episode.decisions]
        self.probing.choose(decisions)
        agreed = agreement(decisions)
        if agreed is not None:
            look.values |= zip(("diary/agreement", "diary/agreement_probability"), agreed, strict=True)
        look.texts |= {f"diary/episode/{place}": episode_page(each) for place, each in enumerate(self.played)}

    def _probe(self, policy: Any, look: Look) -> None:
        pages = self.probing.ask(policy, look.step, self.compare_to_base)
        look.texts = {f"diary/probe/{place}": page for place, page in enumerate(pages)} | look.texts
        steps, tables = self.probing.tables()
        if self.figures and tables and len(steps) > 1:
            from sb3_llm.diary.figures import draw_probes

            look.figures["diary/probes"] = draw_probes(steps, tables, self.probing.phrases(policy))

    def _ask_map(self, policy: Any, look: Look) -> None:
        if self._map is None:
            return
        self.shares = self._map.ask(policy)
        names = "diary/maze_agreement", "diary/maze_probability"
        look.values |= {name: float(np.nanmean(each)) for name, each in zip(names, self.shares, strict=True)}
        if self.figures:
            from sb3_llm.diary.figures import draw_maze

            look.figures["diary/maze"] = draw_maze(self._map, self.shares)
