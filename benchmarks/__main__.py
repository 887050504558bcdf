"""``python -m benchmarks NAME``."""

import typer

from sb3_llm.benchmarks.demo import demo
from sb3_llm.benchmarks.dialogue import dialogue
from sb3_llm.benchmarks.endtoend import end_to_end
from sb3_llm.benchmarks.lists import lists
from sb3_llm.benchmarks.lookup import lookup
from sb3_llm.benchmarks.memoryless import memoryless
from sb3_llm.benchmarks.misleading import misleading
from sb3_llm.benchmarks.profile import profile
from sb3_llm.benchmarks.scoring import scoring
from sb3_llm.benchmarks.suite.command import benchmark
from sb3_llm.benchmarks.sweep import sweep
from sb3_llm.benchmarks.texts import texts
from sb3_llm.benchmarks.textworld_coin import textworld_coin
from sb3_llm.benchmarks.update import update
from sb3_llm.benchmarks.watching import watching
from sb3_llm.benchmarks.worlds import worlds
from sb3_llm.benchmarks.zeroshot import zeroshot

app = typer.Typer(help="Measure the project.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.command("suite", epilog="Example: python -m benchmarks suite --suite quick")(benchmark)
app.command("demo", epilog="Example: python -m benchmarks demo --out runs/demo")(demo)
app.command("scoring", epilog="Example: python -m benchmarks scoring --only 1 --no-memory")(scoring)
app.command("decisions", epilog="Example: python -m benchmarks decisions --repeats 3")(end_to_end)
app.command("profile", epilog="Example: python -m benchmarks profile --iterations 5")(profile)
app.command("update", epilog="Example: python -m benchmarks update --repeats 5")(update)
app.command("sweep", epilog="Example: python -m benchmarks sweep --algorithm ppo")(sweep)
app.command("misleading", epilog="Example: python -m benchmarks misleading --seeds 5")(misleading)
app.command("watching", epilog="Example: python -m benchmarks watching --repeats 3")(watching)
app.command("lookup", epilog="Example: python -m benchmarks lookup --steps 100")(lookup)
app.command("lists", epilog="Example: python -m benchmarks lists --lines 20")(lists)
app.command("memoryless", epilog="Example: python -m benchmarks memoryless --layouts 20")(memoryless)
app.command("texts", epilog="Example: python -m benchmarks texts --steps 800")(texts)
app.command("dialogue", epilog="Example: python -m benchmarks dialogue --steps 20000")(dialogue)
app.command("textworld-coin", epilog="Example: python -m benchmarks textworld-coin --steps 4096")(textworld_coin)
app.command("worlds", epilog="Example: python -m benchmarks worlds")(worlds)
app.command("zeroshot", epilog="Example: python -m benchmarks zeroshot --rows lm,random --tasks DoorKey-6x6")(zeroshot)

if __name__ == "__main__":
    app()
