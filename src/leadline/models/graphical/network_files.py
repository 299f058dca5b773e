"""A Bayesian network in a .bif or a .uai file, by the ending of the name."""

import os
from pathlib import Path

from leadline.core import DataError
from leadline.data.bif import read_bif, write_bif
from leadline.data.networks import FactorFile, Network
from leadline.data.uai import read_uai, write_uai

__all__ = ["read_network", "write_network"]


def read_network(path: str | os.PathLike[str]) -> Network:
    """Return the network in a .bif or .uai file (kind BAYES), compressed by gzip or not.

    Raises:
        DataError: If the file does not hold one; the message names the line.
    """
    if _suffix(path) != ".uai":
        return read_bif(path)
    file = read_uai(path)
    children = [scope[-1] for scope in file.scopes if scope]
    if file.kind != "BAYES" or sorted(children) != list(range(len(file.sizes))):
        raise DataError(
            f"{path}: a Bayesian network needs kind BAYES and one function a variable, its child last; "
            "read it as a markov_random_field"
        )
    functions = {scope[-1]: i for i, scope in enumerate(file.scopes)}
    order = [functions[v] for v in range(len(file.sizes))]
    parents = tuple(file.scopes[i][:-1] for i in order)
    return Network(Path(path).stem, (), (), parents, tuple(file.tables[i] for i in order))


def write_network(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a .bif or .uai file; reading it gives an equal network."""
    if _suffix(path) != ".uai":
        write_bif(network, path)
        return
    sizes = tuple(len(values) for values in network.values)
    scopes = tuple((*above, v) for v, above in enumerate(network.parents))
    write_uai(FactorFile("BAYES", sizes, scopes, network.tables), path)


def _suffix(path: str | os.PathLike[str]) -> str:
    """Return the ending of a path, that of gzip left out."""
    return Path(Path(path).name.removesuffix(".gz")).suffix.lower()
