"""The one table of models by name, and `build`, which makes one for a data set."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from leadline.core import Described, DomainError, OptionError, Recipe
from leadline.core.errors import no_data_set, unknown_name

__all__ = ["CATALOG", "Entry", "build", "model_class", "options_of"]


@dataclass(frozen=True)
class Entry:
    """A line of the catalog.

    Args:
        path: Module and class, "package.module:Class".
        family: The family it belongs to.
        summary: What it is, in a few words.
        source: Where it comes from.
        fixed: Options that the name settles.
        asked: Whether a comparison takes it only when it is asked for by name, being large.
    """

    path: str
    family: str
    summary: str
    source: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    asked: bool = False


def _net(path: str, summary: str, source: str, **fixed: Any) -> Entry:
    """Return the line of a net for pictures."""
    return Entry(f"{_M}.supervised.{path}", "supervised", summary, source, fixed, asked=True)


_M = "leadline.models"
_RESNET, _CIFAR = "resnet:ResNetClassifier", "cifar_resnet:CifarResNet"
_ALEXNET, _VGG, _PRELU = "alexnet:AlexNetClassifier", "vgg:VGGClassifier", "prelu_net:PReLUNetClassifier"
_GOOGLENET, _BN_INCEPTION = "googlenet:GoogLeNetClassifier", "bn_inception:BNInceptionClassifier"
_DENSENET, _DENSENET_BC = "densenet:DenseNetClassifier", "densenet_bc:DenseNetBC"
_HE, _HE_15 = "He, Zhang, Ren and Sun (2016)", "He, Zhang, Ren and Sun (2015)"
_SIMONYAN, _HUANG = "Simonyan and Zisserman (2015)", "Huang et al. (2017)"

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
    "ensemble": Entry(
        f"{_M}.supervised.ensemble:Ensemble",
        "supervised",
        "mean probability of several models",
        "Hansen and Salamon (1990); Lakshminarayanan et al. (2017)",
    ),
    "convnet": Entry(
        f"{_M}.supervised.convnet:ConvNet", "supervised", "small convolutional network", "LeCun et al. (1998)"
    ),
    "alexnet": _net(_ALEXNET, "five convolutions, three dense layers", "Krizhevsky et al. (2012)"),
    "vgg11": _net(_VGG, "VGG net of 11 layers", _SIMONYAN, depth=11, norm="none"),
    "vgg11_bn": _net(_VGG, "vgg11 with batch normalisation", _SIMONYAN, depth=11, norm="batch"),
    "vgg13": _net(_VGG, "VGG net of 13 layers", _SIMONYAN, depth=13, norm="none"),
    "vgg13_bn": _net(_VGG, "vgg13 with batch normalisation", _SIMONYAN, depth=13, norm="batch"),
    "vgg16": _net(_VGG, "VGG net of 16 layers", _SIMONYAN, depth=16, norm="none"),
    "vgg16_bn": _net(_VGG, "vgg16 with batch normalisation", _SIMONYAN, depth=16, norm="batch"),
    "vgg19": _net(_VGG, "VGG net of 19 layers", _SIMONYAN, depth=19, norm="none"),
    "vgg19_bn": _net(_VGG, "vgg19 with batch normalisation", _SIMONYAN, depth=19, norm="batch"),
    "googlenet": _net(_GOOGLENET, "inception modules, auxiliary heads", "Szegedy et al. (2015)"),
    "bn_inception": _net(_BN_INCEPTION, "inception, normalised", "Ioffe and Szegedy (2015)"),
    "prelu_net_a": _net(_PRELU, "22 layers with learned slopes, model A", _HE_15, model="A"),
    "prelu_net_b": _net(_PRELU, "25 layers with learned slopes, model B", _HE_15, model="B"),
    "prelu_net_c": _net(_PRELU, "prelu_net_b with more channels, model C", _HE_15, model="C"),
    "resnet18": _net(_RESNET, "residual net of 18 layers", _HE, depth=18),
    "resnet34": _net(_RESNET, "residual net of 34 layers", _HE, depth=34),
    "resnet50": _net(_RESNET, "residual net of 50 layers, bottlenecks", _HE, depth=50),
    "resnet101": _net(_RESNET, "residual net of 101 layers, bottlenecks", _HE, depth=101),
    "resnet152": _net(_RESNET, "residual net of 152 layers, bottlenecks", _HE, depth=152),
    "plain18": _net(_RESNET, "resnet18 without shortcuts", _HE, depth=18, shortcut="none"),
    "plain34": _net(_RESNET, "resnet34 without shortcuts", _HE, depth=34, shortcut="none"),
    "densenet121": _net(_DENSENET, "densely connected net of 121 layers", _HUANG, depth=121),
    "densenet161": _net(_DENSENET, "densely connected net of 161 layers", _HUANG, depth=161),
    "densenet169": _net(_DENSENET, "densely connected net of 169 layers", _HUANG, depth=169),
    "densenet201": _net(_DENSENET, "densely connected net of 201 layers", _HUANG, depth=201),
    "densenet_bc": _net(_DENSENET_BC, "densely connected net for small pictures", _HUANG),
    "cifar_resnet20": _net(_CIFAR, "residual net of 20 layers for small pictures", _HE, depth=20),
    "cifar_resnet32": _net(_CIFAR, "residual net of 32 layers for small pictures", _HE, depth=32),
    "cifar_resnet44": _net(_CIFAR, "residual net of 44 layers for small pictures", _HE, depth=44),
    "cifar_resnet56": _net(_CIFAR, "residual net of 56 layers for small pictures", _HE, depth=56),
    "cifar_resnet110": _net(_CIFAR, "residual net of 110 layers for small pictures", _HE, depth=110),
    "cifar_plain20": _net(_CIFAR, "cifar_resnet20 without shortcuts", _HE, depth=20, shortcut="none"),
    "cifar_plain32": _net(_CIFAR, "cifar_resnet32 without shortcuts", _HE, depth=32, shortcut="none"),
    "cifar_plain44": _net(_CIFAR, "cifar_resnet44 without shortcuts", _HE, depth=44, shortcut="none"),
    "cifar_plain56": _net(_CIFAR, "cifar_resnet56 without shortcuts", _HE, depth=56, shortcut="none"),
    "cifar_plain110": _net(_CIFAR, "cifar_resnet110 without shortcuts", _HE, depth=110, shortcut="none"),
    "acoustic_dnn": Entry(
        f"{_M}.supervised.acoustic_dnn:AcousticDNN",
        "supervised",
        "deep net on frames of sound, pre-trained as Boltzmann machines on request",
        "Hinton et al. (2012); Dahl et al. (2012)",
    ),
    "acoustic_gmm": Entry(
        f"{_M}.supervised.acoustic_gmm:AcousticGMM",
        "supervised",
        "mixture of Gaussians of frames of sound, one a class",
        "Reynolds and Rose (1995)",
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
    "mixture": Entry(
        f"{_M}.graphical.mixture:Mixture",
        "graphical",
        "mixture of Bernoullis, categories, words, Gaussians or t by EM",
        "McLachlan and Peel (2000)",
    ),
    "noisy_or": Entry(
        f"{_M}.graphical.noisy_or:NoisyOr",
        "graphical",
        "noisy-OR of hidden causes",
        "Shwe et al. (1991); Jaakkola and Jordan (1999)",
    ),
    "lda": Entry(
        f"{_M}.graphical.lda:LDA",
        "graphical",
        "latent Dirichlet allocation: topics of documents",
        "Blei, Ng and Jordan (2003); Hoffman et al. (2010); Griffiths and Steyvers (2004)",
    ),
    "bayesian_network": Entry(
        f"{_M}.graphical.bayesian_network:BayesianNetwork",
        "graphical",
        "Bayesian network over categories, exact inference",
        "Pearl (1988); Lauritzen and Spiegelhalter (1988)",
    ),
    "ising": Entry(
        f"{_M}.graphical.ising:Ising",
        "graphical",
        "Ising model of bits on a grid or any graph",
        "Ising (1925); Besag (1975)",
    ),
    "markov_random_field": Entry(
        f"{_M}.graphical.markov_random_field:MarkovRandomField",
        "graphical",
        "Markov random field over categories, exact inference",
        "Kindermann and Snell (1980); Lauritzen and Spiegelhalter (1988)",
    ),
    "rbm": Entry(f"{_M}.boltzmann.rbm:RBM", "boltzmann", "restricted Boltzmann machine", "Hinton (2002)"),
    "dbn": Entry(
        f"{_M}.boltzmann.dbn:DBN", "boltzmann", "deep belief net", "Hinton, Osindero and Teh (2006)"
    ),
    "dbm": Entry(
        f"{_M}.boltzmann.dbm:DBM", "boltzmann", "deep Boltzmann machine", "Salakhutdinov and Hinton (2009)"
    ),
    "energy": Entry(
        f"{_M}.boltzmann.energy:Energy",
        "boltzmann",
        "neural energy learned with Langevin chains",
        "Du and Mordatch (2019)",
    ),
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
    """Return the options of a model: the parameters of its `for_data` after `data`, but those of its name."""
    parameters = inspect.signature(model_class(name).for_data).parameters  # type: ignore[attr-defined]
    settled = ("cls", "data", "build", *CATALOG[name].fixed)
    return {key: value for key, value in parameters.items() if key not in settled}


def _check_gaps(name: str, data: Described) -> None:
    """Check that a model takes missing values, if there may be any.

    Raises:
        DomainError: If it does not.
    """
    if getattr(data.domain, "missing", False) and not getattr(model_class(name), "takes_missing", False):
        raise DomainError(
            f"{name} needs whole rows, but the data are {data.domain}: load them with missing='refuse' "
            "and skip_bad (--skip-bad) to leave such rows out, or use bayesian_network"
        )


def build(name: str, data: Described, **options: Any) -> nn.Module:
    """Return a new model whose sizes and likelihood follow from `data.domain` and `data.labels`.

    What it was built with stands in its `recipe`. A model may leave `decided`, options that it settled
    itself (None for one that is not needed again), and `origin`, where its first weights came from.
    A model made of models has an argument `build` in its `for_data`, and is given this function.

    Args:
        name: A catalog name; see `leadline models`.
        data: A data set, or anything with a domain and labels.
        **options: Options of the model, the parameters of its `for_data`.

    Raises:
        OptionError: If the name or an option is unknown or out of range, or there is no data set.
        DomainError: If the model cannot hold the domain.
    """
    if not hasattr(data, "domain"):
        raise no_data_set("build", data)
    known, fixed = options_of(name), CATALOG[name].fixed
    for option, value in options.items():
        if option in fixed and fixed[option] != value:
            raise OptionError(f"{name} has {option}={fixed[option]}, which its name settles; got {value!r}")
        if option not in known and option not in fixed:
            raise unknown_name(f"option of {name}", option, known)
    _check_gaps(name, data)
    make: Any = model_class(name).for_data  # type: ignore[attr-defined]
    more = {"build": build} if "build" in inspect.signature(make).parameters else {}
    chosen = {**fixed, **options}
    try:
        model: nn.Module = make(data, **more, **chosen)
    except ValueError as error:
        raise OptionError(f"{name}: {error}") from error
    except DomainError as error:
        raise DomainError(f"{name}: {error}") from error
    decided = {key: value for key, value in getattr(model, "decided", {}).items() if key in known}
    kept = {key: value for key, value in (chosen | decided).items() if decided.get(key, value) is not None}
    model.recipe = Recipe(name, kept, dict(getattr(model, "origin", {})))  # type: ignore[assignment]
    return model
