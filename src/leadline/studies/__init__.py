"""Phenomena, one file each: a claim, its controls, readings over seeds, a verdict that may be undecided."""

from leadline.studies.birthday_paradox import STUDY as _BIRTHDAY_PARADOX
from leadline.studies.birthday_paradox import birthday_paradox
from leadline.studies.chain_convergence import STUDY as _CHAIN_CONVERGENCE
from leadline.studies.chain_convergence import chain_convergence
from leadline.studies.contrastive_divergence_bias import STUDY as _CONTRASTIVE_DIVERGENCE_BIAS
from leadline.studies.contrastive_divergence_bias import contrastive_divergence_bias
from leadline.studies.dense_parameters import STUDY as _DENSE_PARAMETERS
from leadline.studies.dense_parameters import dense_parameters
from leadline.studies.depth import STUDY as _DEPTH
from leadline.studies.depth import depth
from leadline.studies.edge_of_stability import STUDY as _EDGE_OF_STABILITY
from leadline.studies.edge_of_stability import edge_of_stability
from leadline.studies.em_monotone import STUDY as _EM_MONOTONE
from leadline.studies.em_monotone import em_monotone
from leadline.studies.finding import Finding
from leadline.studies.hessian_spectrum import STUDY as _HESSIAN_SPECTRUM
from leadline.studies.hessian_spectrum import hessian_spectrum
from leadline.studies.langevin_bias import STUDY as _LANGEVIN_BIAS
from leadline.studies.langevin_bias import langevin_bias
from leadline.studies.layerwise_bound import STUDY as _LAYERWISE_BOUND
from leadline.studies.layerwise_bound import layerwise_bound
from leadline.studies.optimizer_paths import STUDY as _OPTIMIZER_PATHS
from leadline.studies.optimizer_paths import optimizer_paths
from leadline.studies.random_labels import STUDY as _RANDOM_LABELS
from leadline.studies.random_labels import random_labels
from leadline.studies.sharpness import STUDY as _SHARPNESS
from leadline.studies.sharpness import sharpness
from leadline.studies.stationary_point import STUDY as _STATIONARY_POINT
from leadline.studies.stationary_point import stationary_point
from leadline.studies.study import Study, StudyError
from leadline.studies.variational_gap import STUDY as _VARIATIONAL_GAP
from leadline.studies.variational_gap import variational_gap

__all__ = [
    "STUDIES",
    "Finding",
    "Study",
    "StudyError",
    "birthday_paradox",
    "chain_convergence",
    "contrastive_divergence_bias",
    "dense_parameters",
    "depth",
    "edge_of_stability",
    "em_monotone",
    "hessian_spectrum",
    "langevin_bias",
    "layerwise_bound",
    "optimizer_paths",
    "random_labels",
    "sharpness",
    "stationary_point",
    "variational_gap",
]

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        _BIRTHDAY_PARADOX,
        _CHAIN_CONVERGENCE,
        _CONTRASTIVE_DIVERGENCE_BIAS,
        _DENSE_PARAMETERS,
        _DEPTH,
        _EDGE_OF_STABILITY,
        _EM_MONOTONE,
        _HESSIAN_SPECTRUM,
        _LANGEVIN_BIAS,
        _LAYERWISE_BOUND,
        _OPTIMIZER_PATHS,
        _RANDOM_LABELS,
        _SHARPNESS,
        _STATIONARY_POINT,
        _VARIATIONAL_GAP,
    )
}
