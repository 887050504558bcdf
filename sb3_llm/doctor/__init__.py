"""
``sb3-llm doctor``: what fails without an error, looked for in the user's own model and environment.

A check is a function of a :class:`~sb3_llm.doctor.patient.Patient`, a model that has just played its environment, and
measures one thing in it. Whatever is wrong, the others still run, and the model is as it was afterwards.
"""

from sb3_llm.doctor.checks import CHECKS, Finding, examine
from sb3_llm.doctor.report import as_json, as_table, run

__all__ = ["CHECKS", "Finding", "as_json", "as_table", "examine", "run"]
