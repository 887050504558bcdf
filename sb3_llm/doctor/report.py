"""From an environment's id and a model's name to the doctor's table."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from sb3_llm.doctor.checks import CHECKS, Finding, examine, failed
from sb3_llm.errors import SetupError
from sb3_llm.runs import Run

MAKING = "making the policy"


def run(
    env_id: str,
    model: str = "embedded",
    algorithm: str = "ppo",
    env_kwargs: dict[str, Any] | None = None,
    n_envs: int = 8,
    **policy_kwargs: Any,
) -> list[Finding]:
    """
    Make a policy as ``sb3-llm train`` does, and examine it, with progress on standard error.

    :param env_id: a Gymnasium id with discrete actions
    :param model: "embedded", a local folder, or a hub name
    :param algorithm: ppo, a2c, trpo or maskable_ppo
    :param env_kwargs: the environment's own keyword arguments, and options of make_env
    :param n_envs: environments side by side
    :param policy_kwargs: further keywords of the policy, such as finetune
    :return: the findings; one alone, that failed, if the policy can't be made
    """
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(MAKING, total=len(CHECKS) + 2)
        try:
            how = Run(
                env_id, algorithm, model=model, n_envs=n_envs, env_kwargs=env_kwargs or {}, policy_kwargs=policy_kwargs
            )
            player = how.make_model(how.make_env())
        except SetupError as error:
            return [failed(MAKING, error)]
        return examine(player, lambda name: progress.update(task, description=name, advance=1))


def as_table(findings: Sequence[Finding], title: str = "") -> Table:
    """:return: the findings for the terminal"""
    table = Table("check", "", "measured", "to mend it", title=title or None, show_lines=True)
    for name, passed, figure, mend in findings:
        mark = Text("pass", style="green") if passed else Text("FAIL", style="bold red")
        table.add_row(Text(name), mark, Text(figure), Text(mend))  # Text: a phrase may hold what rich takes for markup
    return table


def as_json(findings: Sequence[Finding]) -> str:
    """:return: the findings as a JSON list"""
    return json.dumps([finding._asdict() for finding in findings], indent=1)
