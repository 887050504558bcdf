"""
Demonstrations: decisions of an expert or a person, and a language model taught by them before any RL.

A file of demonstrations is JSONL in UTF-8, one decision a line::

    {"observation": "Goal: ... North wall.", "phrase": "south", "phrases": ["north", "south"], "episode": 3, "step": 0}

``observation``
    the observation text, as the policy will read it
``phrase``
    what was said
``phrases`` (optional)
    what could be said, in action order. Without it, whatever any line of the file says could be said here too. That
    leaves out actions that no line takes, and the policy chooses among all of its environment's: better name them
``episode`` (optional), ``step`` (optional)
    whole numbers from 0. Lines of one episode stay together when some are held out

Other keys are passed over. ``record`` lets an expert play, ``play`` a person at the keyboard, both write such lines;
``clone`` teaches them to a model, which comes out as a folder for ``policy_kwargs={"model": FOLDER}``.
"""

from sb3_llm.demos.cloning import clone
from sb3_llm.demos.folder import CloneReport, Figures
from sb3_llm.demos.keyboard import play
from sb3_llm.demos.lines import Demo, read_demos, write_demos
from sb3_llm.demos.recording import Recorded, expert_for, record

__all__ = [
    "CloneReport",
    "Demo",
    "Figures",
    "Recorded",
    "clone",
    "expert_for",
    "play",
    "read_demos",
    "record",
    "write_demos",
]
