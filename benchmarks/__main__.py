"""``python -m benchmarks NAME``."""

import typer

from benchmarks.demo import demo

app = typer.Typer(help="Measure the project.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.callback()(lambda: None)  # keeps `demo` a subcommand while it is the only one
app.command("demo", epilog="Example: python -m benchmarks demo --out runs/demo")(demo)

if __name__ == "__main__":
    app()
