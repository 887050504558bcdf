"""The project measured: ``python -m benchmarks demo``. Installed as ``sb3_llm.benchmarks``."""
