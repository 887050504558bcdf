"""Training seen in words: probe prompts, sampled episodes and agreement with an expert, written down now and then."""

from sb3_llm.diary.callback import Diary
from sb3_llm.diary.guides import EXPERTS, Guide
from sb3_llm.diary.maps import MazeMap, Shares
from sb3_llm.diary.playing import Decision, Episode

__all__ = ["EXPERTS", "Decision", "Diary", "Episode", "Guide", "MazeMap", "Shares"]
