"""Training runs: start, interrupt, resume, in one process or several; the language model as the MLP baseline."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import cloudpickle
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from sb3_llm.distributed import Ranks, RanksApart, join_ranks
from sb3_llm.errors import SetupError
from sb3_llm.folder import RunFolder, algorithm_of, load_model
from sb3_llm.resume import Checkpoints, unpack_envs, weights_are_finite
from sb3_llm.runs import ALGORITHMS, HYPERPARAMETERS, POLICIES, Run

__all__ = [
    "ALGORITHMS",
    "HYPERPARAMETERS",
    "POLICIES",
    "Run",
    "RunFolder",
    "TrainingStopped",
    "algorithm_of",
    "load_model",
    "train",
]


class TrainingStopped(RuntimeError):
    """Training can't go on. The message says why, and which checkpoint is good: no worse one took its place."""


def train(
    run: Run,
    timesteps: int,
    folder: RunFolder,
    resume: bool = False,
    progress_bar: bool = True,
    callback: Sequence[BaseCallback] = (),
) -> tuple[BaseAlgorithm, bool]:
    """
    Train until ``timesteps``, or until Ctrl-C; the model is in the folder either way.

    Killed at any moment, the run goes on from its last checkpoint with ``resume=True``, and on a CPU ends in the same
    weights, bit for bit. After Ctrl-C, which stops amid a rollout or an update, it goes on with fresh episodes; several
    processes save nothing then.

    Under ``torchrun`` each process steps its own ``run.n_envs`` environments and gradients are averaged.

    :param run: what to train
    :param timesteps: environment steps in all, those of all processes and the resumed ones included
    :param folder: where the model goes
    :param resume: go on from the folder's checkpoint; from the start, if the run was killed before there was one
    :param progress_bar: show SB3's
    :param callback: further callbacks; their counts are resumed too
    :return: the model, and whether it was trained to the end
    :raises SetupError: for what can't work, before anything is trained
    :raises TrainingStopped: if the loss or a gradient is not finite, or another process is gone
    """
    others = list(callback or ())
    with join_ranks() as ranks:
        ranks.check(run.algorithm, run.settings, repr(run))
        saved = resume and folder.model.exists()
        model, state = _resumed(run, folder, ranks) if saved else (_begun(run, ranks), None)
        checkpoints = Checkpoints(partial(folder.save, run, model), run.save_every, ranks, others, state)
        try:
            ranks.tie(model.policy)
            if ranks.chief:  # once all processes have looked at the folder
                folder.begin(run)
            left = ranks.share(timesteps) - model.num_timesteps
            if left > 0:
                bar = progress_bar and ranks.chief
                model.learn(left, [checkpoints, *others], progress_bar=bar, reset_num_timesteps=not saved)
                checkpoints.save()
        except KeyboardInterrupt as error:
            if ranks.size > 1:  # which are at different places: there is nothing whole to save
                apart = RanksApart("interrupted")
                raise TrainingStopped(_explain(apart, model, ranks, folder, checkpoints.saved_at)) from error
            folder.save(run, model)
            return model, False
        except (FloatingPointError, RanksApart, ValueError) as error:
            if isinstance(error, ValueError) and weights_are_finite(model):  # MlpPolicy's on NaN are ValueErrors too
                raise
            raise TrainingStopped(_explain(error, model, ranks, folder, checkpoints.saved_at)) from error
    return model, True


def _begun(run: Run, ranks: Ranks) -> BaseAlgorithm:
    own = ranks.own(run)
    return own.make_model(own.make_env(), **ranks.quiet, **_device(run, ranks))


def _resumed(run: Run, folder: RunFolder, ranks: Ranks) -> tuple[BaseAlgorithm, dict[str, Any] | None]:
    """The model of the last checkpoint in its environments, and the rest of this process's state."""
    own, states = ranks.own(run), folder.load_states()
    if states is not None and len(states) != ranks.size:
        alone, several = "resume it without torchrun", f"resume it with torchrun --nproc-per-node {len(states)}"
        raise SetupError(
            f"{ranks.size} processes for a run of {len(states)}, in {folder.path}",
            f"{len(states)} processes, which its environments and random numbers belong to",
            several if len(states) > 1 else alone,
        )
    state = cloudpickle.loads(states[ranks.rank]) if states else None
    env = unpack_envs(state["envs"] if state else None)
    options = {"seed": own.seed, **ranks.quiet, **_device(run, ranks)}
    model: Any = load_model(folder.model, env or own.make_env(), run.algorithm, **options)
    vars(model).update(state["model"] if state else {})
    if env is None:
        model._last_obs = None  # SB3 resets the environments then
        model.env.seed(own.seed + model.num_timesteps)  # not to the episodes that the run began with
    return model, state


def _device(run: Run, ranks: Ranks) -> dict[str, Any]:
    if run.policy == "mlp":
        return {"device": "cpu"}
    return {"device": run.settings.get("device", ranks.device)}


def _explain(error: Exception, model: BaseAlgorithm, ranks: Ranks, folder: RunFolder, saved_at: int | None) -> str:
    steps, rollout = model.num_timesteps, getattr(model, "n_steps", 1) * model.n_envs
    update = max(1, -(-steps // rollout))  # as the policy counts them: rollouts trained on
    what = f"training stopped at update {update}, after {steps * ranks.size} steps: {str(error).rstrip('.')}."
    if saved_at is None:
        return f"{what} There is no checkpoint of this run."
    how = "the same command" if ranks.size == 1 else f"the same torchrun command, of {ranks.size} processes,"
    return f"{what} The last good checkpoint is {folder.model}, of step {saved_at}: {how} with --resume goes on."
