"""One EM step of a Gaussian mixture against scikit-learn's, float32 data, two threads.

Arithmetic: full covariance needs two products of n x (d + 1)^2 x K, 2 * 20,000 * 289 * 16 * 2 = 0.37 GFLOP
in float64; diagonal two of n x (2 d + 1) x K, 0.42 GFLOP. What limits us: writing the statistics of a
chunk (half a megabyte, inside the cache) and, for diagonal covariances, the exponentials of the n x K
responsibilities. Both are computed in float64 where scikit-learn stays in float32.
"""

import os

import torch
from sklearn.mixture import GaussianMixture

from bench.common import ratio
from leadline.core import Vectors
from leadline.models.graphical.gmm import GMM

COMPONENTS = 16


def case(covariance: str, peer_name: str, n: int, d: int, goal: float) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(COMPONENTS, d, generator=generator)
    x = centres[torch.arange(n) % COMPONENTS] + torch.randn(n, d, generator=generator)
    model = GMM(Vectors.standard(d), COMPONENTS, covariance, tolerance=-1.0, max_sweeps=10**9)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model.sweep(x)
    raw = x.numpy()
    peer = GaussianMixture(COMPONENTS, covariance_type=peer_name, max_iter=2, tol=0.0, random_state=0)
    peer.fit(raw)

    def peer_step() -> None:
        _, log_responsibilities = peer._e_step(raw)
        peer._m_step(raw, log_responsibilities)

    ratio(
        f"gmm {covariance} {n}x{d}, {COMPONENTS} components, EM step against scikit-learn",
        lambda: model.sweep(x),
        peer_step,
        goal=goal,
        rounds=31,
    )


def main() -> None:
    torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
    case("full", "full", 20_000, 16, 2.0)
    case("diagonal", "diag", 100_000, 32, 1.1)


if __name__ == "__main__":
    main()
