"""A Bayesian network in a .bif or a .uai file, by the ending of the name."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from leadline.core import DataError, OptionError
from leadline.data.bif import read_bif, write_bif
from leadline.data.networks import FactorFile, Network
from leadline.data.uai import read_uai, write_uai
from leadline.inference.graphs import topological_order

__all__ = ["check_order", "parents_of", "read_network", "write_network"]


def read_network(path: str | os.PathLike[str]) -> Network:
    """Return the network in a .bif or .uai file (kind BAYES), compressed by gzip or not.

    Raises:
        DataError: If the file does not hold one; the message names it, and the line or the cycle.
    """
    if _suffix(path) != ".uai":
        network = read_bif(path)
        check_order(path, network.parents, network.columns)
        return network
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
    check_order(path, parents)
    return Network(Path(path).stem, (), (), parents, tuple(file.tables[i] for i in order))


def parents_of(file: FactorFile) -> list[set[int]]:
    """Return whom the functions of a BAYES file name as parents of each variable."""
    parents: list[set[int]] = [set() for _ in file.sizes]
    for scope in file.scopes:
        if scope:
            parents[scope[-1]].update(scope[:-1])
    return parents


def check_order(
    path: str | os.PathLike[str], parents: Sequence[Iterable[int]], names: Sequence[str] | None = None
) -> None:
    """Check that nothing in a file is its own ancestor.

    Raises:
        DataError: If the graph has a cycle; the message names the file and goes round it.
    """
    try:
        topological_order(parents, names)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def write_network(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a .bif or .uai file, compressed where .gz follows; reading it gives an equal network.

    Raises:
        OptionError: If the ending is another.
        RunError: If the file cannot be written.
    """
    if _suffix(path) not in (".bif", ".uai"):
        raise OptionError(f"{path}: a Bayesian network is written as .bif or .uai, with .gz compressed")
    if _suffix(path) != ".uai":
        write_bif(network, path)
        return
    sizes = tuple(len(values) for values in network.values)
    scopes = tuple((*above, v) for v, above in enumerate(network.parents))
    write_uai(FactorFile("BAYES", sizes, scopes, network.tables), path)


def _suffix(path: str | os.PathLike[str]) -> str:
    """Return the ending of a path, that of gzip left out."""
    return Path(Path(path).name.removesuffix(".gz")).suffix.lower()
