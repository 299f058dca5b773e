"""The one table of models by name, and `build`, which makes one for a data set."""

import importlib
import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn

from leadline.core import Described, OptionError, Recipe
from leadline.core.errors import unknown_name

__all__ = ["CATALOG", "Entry", "build", "model_class", "options_of"]


@dataclass(frozen=True)
class Entry:
    """A line of the catalog.

    Args:
        path: Module and class, "package.module:Class".
        family: The family it belongs to.
        summary: What it is, in a few words.
        source: Where it comes from.
    """

    path: str
    family: str
    summary: str
    source: str


_M = "leadline.models"

CATALOG: dict[str, Entry] = {
    "linear": Entry(
        f"{_M}.supervised.linear:Linear",
        "supervised",
        "softmax or least-squares regression",
        "Bishop (2006), chapters 3 and 4",
    ),
    "mlp": Entry(
        f"{_M}.supervised.mlp:MLP",
        "supervised",
        "multi-layer perceptron",
        "Rumelhart, Hinton and Williams (1986)",
    ),
    "convnet": Entry(
        f"{_M}.supervised.convnet:ConvNet", "supervised", "small convolutional network", "LeCun et al. (1998)"
    ),
    "pca": Entry(
        f"{_M}.structure.pca:PCA",
        "structure",
        "principal component analysis",
        "Pearson (1901); Tipping and Bishop (1999)",
    ),
    "kmeans": Entry(
        f"{_M}.structure.kmeans:KMeans",
        "structure",
        "k-means clustering",
        "Lloyd (1982); Arthur and Vassilvitskii (2007)",
    ),
    "gmm": Entry(
        f"{_M}.graphical.gmm:GMM",
        "graphical",
        "mixture of Gaussians by EM",
        "Dempster, Laird and Rubin (1977)",
    ),
    "rbm": Entry(f"{_M}.boltzmann.rbm:RBM", "boltzmann", "restricted Boltzmann machine", "Hinton (2002)"),
    "autoencoder": Entry(
        f"{_M}.autoencoders.autoencoder:Autoencoder",
        "autoencoders",
        "autoencoder, dense or convolutional",
        "Hinton and Salakhutdinov (2006)",
    ),
    "vae": Entry(
        f"{_M}.autoencoders.vae:VAE", "autoencoders", "variational autoencoder", "Kingma and Welling (2014)"
    ),
    "made": Entry(
        f"{_M}.autoregressive.made:MADE",
        "autoregressive",
        "masked autoencoder for distribution estimation",
        "Germain et al. (2015)",
    ),
    "lstm": Entry(
        f"{_M}.autoregressive.lstm:LSTM",
        "autoregressive",
        "LSTM language model",
        "Hochreiter and Schmidhuber (1997)",
    ),
    "realnvp": Entry(
        f"{_M}.flows.realnvp:RealNVP",
        "flows",
        "flow of affine couplings",
        "Dinh, Sohl-Dickstein and Bengio (2017)",
    ),
    "gan": Entry(
        f"{_M}.adversarial.gan:GAN",
        "adversarial",
        "generative adversarial network",
        "Goodfellow et al. (2014); Gulrajani et al. (2017)",
    ),
}


def model_class(name: str) -> type[nn.Module]:
    """Return the class of a catalog name.

    Raises:
        OptionError: If the name is unknown; the message lists the known ones.
    """
    if name not in CATALOG:
        raise unknown_name("model", name, CATALOG)
    module, _, attribute = CATALOG[name].path.partition(":")
    found: type[nn.Module] = getattr(importlib.import_module(module), attribute)
    return found


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """Return the options of a model: the parameters of its `for_data` after `data`."""
    parameters = inspect.signature(model_class(name).for_data).parameters  # type: ignore[attr-defined]
    return {key: value for key, value in parameters.items() if key not in ("cls", "data")}


def build(name: str, data: Described, **options: Any) -> nn.Module:
    """Return a new model whose sizes and likelihood follow from `data.domain` and `data.labels`.

    Args:
        name: A catalog name; see `leadline models`.
        data: A data set, or anything with a domain and labels.
        **options: Options of the model, the parameters of its `for_data`.

    Raises:
        OptionError: If the name or an option is unknown or out of range.
        DomainError: If the model cannot hold the domain.
    """
    known = options_of(name)
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    try:
        model: nn.Module = model_class(name).for_data(data, **options)  # type: ignore[attr-defined]
    except ValueError as error:
        raise OptionError(f"{name}: {error}") from error
    model.recipe = Recipe(name, dict(options))  # type: ignore[assignment]
    return model
