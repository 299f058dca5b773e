"""Leadline trains any model of a deep-learning course on your data, and tells how deep it goes.

Names are loaded when they are first used, so that `import leadline` stays light.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leadline import studies
    from leadline.catalog import CATALOG, build
    from leadline.comparison import Comparison, compare
    from leadline.core import LeadlineError
    from leadline.data import Dataset, from_arrays, load
    from leadline.laws import Verification, verify
    from leadline.models.supervised.crops import Crops
    from leadline.reports import draw, report
    from leadline.training import Run, ensemble, fit, refresh_batchnorm
    from leadline.training import open_run as open  # noqa: A004

__version__ = "0.1.0"

_HOMES = {
    "CATALOG": ("leadline.catalog", "CATALOG"),
    "Comparison": ("leadline.comparison", "Comparison"),
    "Crops": ("leadline.models.supervised.crops", "Crops"),
    "Dataset": ("leadline.data", "Dataset"),
    "LeadlineError": ("leadline.core", "LeadlineError"),
    "Run": ("leadline.training", "Run"),
    "Verification": ("leadline.laws", "Verification"),
    "build": ("leadline.catalog", "build"),
    "compare": ("leadline.comparison", "compare"),
    "ensemble": ("leadline.training", "ensemble"),
    "draw": ("leadline.reports", "draw"),
    "fit": ("leadline.training", "fit"),
    "from_arrays": ("leadline.data", "from_arrays"),
    "load": ("leadline.data", "load"),
    "open": ("leadline.training", "open_run"),
    "refresh_batchnorm": ("leadline.training", "refresh_batchnorm"),
    "report": ("leadline.reports", "report"),
    "studies": ("leadline.studies", ""),
    "verify": ("leadline.laws", "verify"),
}

__all__ = [
    "CATALOG",
    "Comparison",
    "Crops",
    "Dataset",
    "LeadlineError",
    "Run",
    "Verification",
    "build",
    "compare",
    "draw",
    "ensemble",
    "fit",
    "from_arrays",
    "load",
    "open",
    "refresh_batchnorm",
    "report",
    "studies",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'leadline' has no attribute {name!r}")
    home, attribute = _HOMES[name]
    module = importlib.import_module(home)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
