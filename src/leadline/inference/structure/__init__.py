"""Graphs from data: trees, scores and the search over them, tests of independence."""

from leadline.inference.structure.counting import Table
from leadline.inference.structure.independence import independence_at, pc, pc_pattern
from leadline.inference.structure.scores import SCORES, FamilyScore
from leadline.inference.structure.search import hill_climbing
from leadline.inference.structure.trees import chow_liu, mutual_information

__all__ = [
    "SCORES",
    "FamilyScore",
    "Table",
    "chow_liu",
    "hill_climbing",
    "independence_at",
    "mutual_information",
    "pc",
    "pc_pattern",
]
