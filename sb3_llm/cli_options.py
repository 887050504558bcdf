"""Options that several commands of ``sb3-llm`` have, and how their values are read."""

import json
from typing import Annotated, Any

import typer

from sb3_llm.errors import SetupError

Seed = Annotated[int, typer.Option(help="Same seed, same run.")]
EnvArg = Annotated[
    list[str] | None, typer.Option("--env-arg", help="The environment's own, as name=JSON: --env-arg size=6")
]
PolicyArg = Annotated[
    list[str] | None, typer.Option("--policy-arg", help="A keyword of the policy, as name=JSON: temperature=2.0")
]
Finetune = Annotated[
    str | None,
    typer.Option(help='What is trained: full, lora, top:N, head, or JSON such as {"mode": "lora", "rank": 4}'),
]


def zip_and_env(arguments: list[str], model: str | None) -> tuple[str | None, str]:
    """
    :param arguments: "[MODEL.zip] ENV"
    :param model: of --model
    :return: the zip, if it is not --model that is asked for, and the id
    :raises SetupError: if neither or both are given
    """
    *zips, env_id = arguments
    if (model is None) != (len(zips) == 1) or len(zips) > 1:
        raise SetupError(
            f"{' '.join(arguments)}" + (f" with --model {model}" if model else ""),
            "either MODEL.zip ENV, or --model NAME ENV",
            f"name one model, such as --model embedded {env_id}",
        )
    return (zips[0] if zips else None), env_id


def json_pairs(option: str, pairs: list[str] | None) -> dict[str, Any]:
    """
    :param option: whose values these are
    :param pairs: "name=JSON" each
    :return: values by name
    :raises SetupError: for a pair of another form
    """
    kwargs: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not (name.isidentifier() and equals):
            raise SetupError(f"{option} {pair}", "name=value", f"write {option} size=6 or {option} split=test")
        kwargs[name] = json_or_text(value)
    return kwargs


def json_or_text(value: str) -> Any:
    """:return: what JSON makes of it; a bare word is a string, as in split=test."""
    try:
        return json.loads(value)
    except ValueError:
        return value
