"""Phenomena, one file each: a claim, its controls, readings over seeds, a verdict that may be undecided.

A study is a line of `leadline.studies.table`, a module of its name, and a line below for checkers of types.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from leadline.studies.table import STUDIES, Study

if TYPE_CHECKING:
    from leadline.studies.birthday_paradox import birthday_paradox as birthday_paradox
    from leadline.studies.chain_convergence import chain_convergence as chain_convergence
    from leadline.studies.contrastive_divergence_bias import (
        contrastive_divergence_bias as contrastive_divergence_bias,
    )
    from leadline.studies.dense_parameters import dense_parameters as dense_parameters
    from leadline.studies.depth import depth as depth
    from leadline.studies.edge_of_stability import edge_of_stability as edge_of_stability
    from leadline.studies.em_monotone import em_monotone as em_monotone
    from leadline.studies.finding import Finding as Finding
    from leadline.studies.hessian_spectrum import hessian_spectrum as hessian_spectrum
    from leadline.studies.langevin_bias import langevin_bias as langevin_bias
    from leadline.studies.large_batch import large_batch as large_batch
    from leadline.studies.layerwise_bound import layerwise_bound as layerwise_bound
    from leadline.studies.optimizer_paths import optimizer_paths as optimizer_paths
    from leadline.studies.random_labels import random_labels as random_labels
    from leadline.studies.saddle_index import saddle_index as saddle_index
    from leadline.studies.sharpness import sharpness as sharpness
    from leadline.studies.stationary_point import stationary_point as stationary_point
    from leadline.studies.study import StudyError as StudyError
    from leadline.studies.variational_gap import variational_gap as variational_gap

_HOMES = {"Finding": "leadline.studies.finding", "StudyError": "leadline.studies.study"}

__all__ = ["STUDIES", "Finding", "Study", "StudyError"]
__all__ += list(STUDIES)


if not TYPE_CHECKING:  # a checker knows the names above, and no others

    def __getattr__(name: str) -> Any:
        if name in STUDIES:
            value: Any = STUDIES[name].run
        elif name in _HOMES:
            value = getattr(importlib.import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module 'leadline.studies' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Studies(ModuleType):
    """This package: its attribute of a study's name is the function, also after the module was imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        mine = name in STUDIES and isinstance(value, ModuleType)
        super().__setattr__(name, vars(value)[name] if mine else value)


sys.modules[__name__].__class__ = _Studies
