"""The model that a file of a graphical model holds, by the form of the file."""

import os
from pathlib import Path

from leadline.core import DataError
from leadline.data.bif import read_bif
from leadline.data.uai import read_uai
from leadline.models.graphical.bayesian_network import BayesianNetwork
from leadline.models.graphical.markov_random_field import MarkovRandomField
from leadline.models.graphical.network_files import check_order, parents_of

__all__ = ["read_model"]


def read_model(path: str | os.PathLike[str]) -> BayesianNetwork | MarkovRandomField:
    """Return the model in a .bif file (a Bayesian network) or a .uai file (a Markov random field).

    Raises:
        DataError: If the ending is another, or the file does not hold such a model; the message names it.
    """
    ending = Path(Path(path).name.removesuffix(".gz")).suffix.lower()
    if ending == ".bif":
        network = read_bif(path)
        check_order(path, network.parents, network.columns)
        return BayesianNetwork.of(network)
    if ending == ".uai":
        file = read_uai(path)
        if file.kind == "BAYES":
            check_order(path, parents_of(file))
        return MarkovRandomField.of(file)
    raise DataError(f"{path}: a graphical model is read from .bif or .uai, compressed by gzip or not")
