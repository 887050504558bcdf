"""The project measured: ``python -m benchmarks demo``. Not part of the installed package."""
