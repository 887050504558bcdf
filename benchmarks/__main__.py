"""``python -m benchmarks NAME``."""

import typer

from benchmarks.demo import demo
from benchmarks.scoring import scoring

app = typer.Typer(help="Measure the project.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.command("demo", epilog="Example: python -m benchmarks demo --out runs/demo")(demo)
app.command("scoring", epilog="Example: python -m benchmarks scoring --batch 16")(scoring)

if __name__ == "__main__":
    app()
