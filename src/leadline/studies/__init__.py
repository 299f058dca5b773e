"""Phenomena, one file each: a claim, its controls, readings over seeds, a verdict that may be undecided."""

from leadline.studies.birthday_paradox import STUDY as _BIRTHDAY_PARADOX
from leadline.studies.birthday_paradox import birthday_paradox
from leadline.studies.finding import Finding
from leadline.studies.random_labels import STUDY as _RANDOM_LABELS
from leadline.studies.random_labels import random_labels
from leadline.studies.stationary_point import STUDY as _STATIONARY_POINT
from leadline.studies.stationary_point import stationary_point
from leadline.studies.study import Study, StudyError

__all__ = [
    "STUDIES",
    "Finding",
    "Study",
    "StudyError",
    "birthday_paradox",
    "random_labels",
    "stationary_point",
]

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        _BIRTHDAY_PARADOX,
        _RANDOM_LABELS,
        _STATIONARY_POINT,
    )
}
