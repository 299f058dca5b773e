"""Gibbs sampling against pgmpy, HMC and NUTS against BlackJAX, on two cores.

Gibbs on alarm. Bound: 37 variables, each the sum of two or three log-factors over two to four states, some
230 loads and 105 exponentials a sample, about a microsecond a core. pgmpy lists, for each variable, all
states of all the others, which never ends on alarm; its own sampling loop is timed with kernels that are
worked out when they are first asked for.

HMC and NUTS. Smallest bulk effective sample size a second over all entries, warm-up included and
compilation not, both sides judged by ArviZ. Antithetic chains flatter the bulk size: the smallest tail size
stands beside it. A leapfrog step of 1,024 chains in 50 dimensions is two products with a dense matrix, 5
Mflop and 59 microseconds each at the 87 Gflop/s of a core, and five passes over 200 kB of 4 to 10
microseconds; a draw of 4 steps adds 140 microseconds of normals, two products and 60 microseconds of choices:
some 0.9 ms, all of it arithmetic. NUTS takes some 35 small kernels a step: below 500 chains they limit it.
Chains share what the warm-up learns, so that a hundred steps do where the peer's chains, which learn alone,
take a thousand. Each side runs at the best of the settings tried for it. Our chains start sixteen points
apart, so that nested R-hat can tell short from stuck. On the funnel no side mixes: R-hat must say so.
"""

import gzip
import itertools
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ALARM = Path(__file__).parents[1] / "../shared/data/bayesnets/alarm.bif.gz"
GOAL_GIBBS, THREADS, ROUNDS, D, DECAY = 50, 2, 3, 50, 0.9
GOALS = {"gaussian hmc": 3250, "gaussian nuts": 900, "schools nuts": 17_000}
EFFECTS = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
ERRORS = [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]
PEER_DRAWS = 100  # of pgmpy at once: more would say no more, and take minutes where a core is busy
POINTS = 16  # where our chains start
OURS = {
    "gaussian hmc": ((256, 120, 400), (1024, 120, 100), (1024, 120, 400)),
    "gaussian nuts": ((256, 120, 100), (1024, 120, 100), (1024, 120, 300)),
    "schools nuts": ((512, 120, 500), (2048, 100, 100), (2048, 100, 500)),
    "funnel nuts": ((128, 300, 300),),
}
# Chains, warm-up, draws, leapfrog steps of HMC, and whether the metric is dense.
PEERS = {
    "gaussian hmc": (
        (4, 1000, 2000, 8, 1),
        (4, 1000, 2000, 30, 0),
        (32, 1000, 500, 8, 1),
        (32, 1000, 4000, 8, 1),
        (32, 1000, 4000, 4, 1),
        (32, 500, 4000, 4, 1),
    ),
    "gaussian nuts": ((4, 500, 1000, 0, 1), (4, 500, 1000, 0, 0), (4, 500, 8000, 0, 1), (32, 500, 200, 0, 1)),
    "schools nuts": (
        (4, 500, 1000, 0, 0),
        (32, 500, 1000, 0, 0),
        (32, 500, 4000, 0, 0),
        (128, 300, 2000, 0, 0),
    ),
    "funnel nuts": ((4, 1000, 1000, 0, 0),),
}


def gibbs() -> None:
    """Print samples a second on alarm, ours and pgmpy's."""
    from leadline.data.bif import read_bif
    from leadline.inference.chains import Gibbs
    from leadline.inference.factors import Factor, FactorGraph

    network = read_bif(ALARM)
    sizes = tuple(len(names) for names in network.values)
    scopes = [(*parents, v) for v, parents in enumerate(network.parents)]
    factors = (Factor(s, t, s[-1]) for s, t in zip(scopes, network.tables, strict=True))
    graph = FactorGraph(sizes, tuple(factors))
    kernel = Gibbs(graph, sweeps=100)
    state = kernel.init(kernel.start(1000))
    kernel.step(state)

    def ours() -> float:
        start = time.perf_counter()
        kernel.step(state)
        return 1000 * 100 / (time.perf_counter() - start)

    sampler = _pgmpy(graph, state.position[0].tolist(), gzip.decompress(ALARM.read_bytes()).decode())
    sampler(PEER_DRAWS)
    pairs = []
    for _ in range(5):
        mine = ours()
        start = time.perf_counter()
        sampler(PEER_DRAWS)
        pairs.append((mine, PEER_DRAWS / (time.perf_counter() - start)))
    ratios = sorted(a / b for a, b in pairs)
    middle = statistics.median(ratios)
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"gibbs on alarm, samples/s: ours {mine:,.0f} (1,000 chains), pgmpy {theirs:,.0f}, "
        f"ratio {middle:,.0f} [{ratios[0]:,.0f}, {ratios[-1]:,.0f}], goal {GOAL_GIBBS}: "
        f"{'met' if middle >= GOAL_GIBBS else 'MISSED'}"
    )


def _pgmpy(graph: Any, start: list[int], text: str) -> Callable[[int], object]:
    """Return pgmpy's sampling loop on alarm, with kernels that are worked out when first asked for."""
    os.environ["TQDM_DISABLE"] = "1"
    import numpy as np
    from pgmpy.factors.discrete import State
    from pgmpy.readwrite import BIFReader
    from pgmpy.sampling import GibbsSampling

    model = BIFReader(string=text).get_model()
    names = [f"v{v}" for v in range(len(graph.sizes))]
    peer = GibbsSampling()
    peer.variables, peer.latents = np.array(names), set(model.latents)
    peer.cardinalities = dict(zip(names, graph.sizes, strict=True))

    class Kernel(dict[tuple[int, ...], Any]):
        def __init__(self, v: int) -> None:
            super().__init__()
            self.v = v

        def __missing__(self, other: tuple[int, ...]) -> Any:
            x = [*other[: self.v], 0, *other[self.v :]]
            p = np.ones(graph.sizes[self.v])
            for f in graph.factors_of[self.v]:
                factor = graph.factors[f]
                p = p * factor.table[tuple(slice(None) if u == self.v else x[u] for u in factor.scope)]
            self[other] = p / p.sum()
            return self[other]

    peer.transition_models = {name: Kernel(v) for v, name in enumerate(names)}
    peer.state = [State(name, at) for name, at in zip(names, start, strict=True)]
    return lambda size: peer.sample(size=size)


def precision() -> Tensor:
    """Return the inverse of the covariance 0.9^|i - j| of the 50-dimensional normal, float64."""
    i = torch.arange(D)
    return torch.linalg.inv(DECAY ** (i[:, None] - i[None]).abs().double())


def ours(task: str, count: int, warmup: int, draws: int, *, whole: bool = True) -> tuple[float, ...]:
    """Return smallest bulk and tail ESS, seconds, largest R-hat and nested R-hat of one run of ours."""
    from leadline.inference import chains

    torch.set_num_threads(1)  # kernels are too small to share
    P = precision().float()
    y, sigma = torch.tensor(EFFECTS), torch.tensor(ERRORS)
    weight = 1 / sigma.square()

    def gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
        slope = -(x @ P)
        return 0.5 * torch.linalg.vecdot(x, slope), slope

    def schools(z: Tensor) -> tuple[Tensor, Tensor]:
        mu, raw = z[:, :1], z[:, 2:]
        tau = z[:, 1:2].exp()
        gap = y - mu - tau * raw
        pull, share = gap * weight, (tau / 5).square()
        value = -0.5 * (raw.square().sum(1) + (gap * pull).sum(1)) - (mu[:, 0] / 5).square() / 2
        slope = torch.empty_like(z)
        torch.sub(tau * pull, raw, out=slope[:, 2:])
        slope[:, 0] = pull.sum(1) - mu[:, 0] / 25
        slope[:, 1] = (tau * pull * raw).sum(1) + 1 - 2 * (share / (1 + share))[:, 0]
        return value - torch.log1p(share[:, 0]) + z[:, 1], slope

    def funnel(z: Tensor) -> tuple[Tensor, Tensor]:
        v, x = z[:, :1], z[:, 1:]
        shrink = (-v).exp()
        half = 0.5 * (x.square() * shrink).sum(1)
        slope = torch.cat([half[:, None] - v / 9 - 4.5, -x * shrink], 1)
        return -v[:, 0].square() / 18 - half - 4.5 * v[:, 0], slope

    target, kind = task.split()
    density = {"gaussian": gaussian, "schools": schools, "funnel": funnel}[target]
    hmc = chains.Hamiltonian(leapfrogs=4)  # about three eighths of a period, at the step that is found
    make: Any = chains.NUTS if kind == "nuts" else lambda f: chains.Metropolis(f, hmc)
    size = {"gaussian": D, "schools": 10, "funnel": 10}[target]
    spread = 3.0 if target == "funnel" else 1.0  # nested R-hat asks for starts as far apart as the target
    start = spread * torch.randn(POINTS, size).repeat_interleave(count // POINTS, 0)
    metric = "dense" if target == "gaussian" else "diagonal"
    begin = time.perf_counter()
    run = chains.sample(
        chains.WithGradient(density),
        start,
        make,
        warmup=warmup,
        draws=draws,
        metric=metric,  # type: ignore[arg-type]
    )
    seconds = time.perf_counter() - begin
    return (*_judged(run.draws.numpy(), seconds, whole=whole), float(run.nested_r_hat.max()))


def peer(
    task: str, count: int, warmup: int, draws: int, leapfrogs: int, dense: int, *, whole: bool = True
) -> tuple[float, ...]:
    """Return smallest bulk and tail ESS, seconds and largest R-hat of a run of BlackJAX, compiled before."""
    warnings.simplefilter("ignore")
    import blackjax
    import jax
    import jax.numpy as jnp
    import numpy as np

    P, y, sigma = jnp.array(precision().numpy(), jnp.float32), jnp.array(EFFECTS), jnp.array(ERRORS)

    def gaussian(x: Any) -> Any:
        return -0.5 * x @ P @ x

    def schools(z: Any) -> Any:
        mu, tau, raw = z[0], jnp.exp(z[1]), z[2:]
        gap = (y - mu - tau * raw) / sigma
        return -(mu**2) / 50 - jnp.log1p((tau / 5) ** 2) + z[1] - 0.5 * (raw**2).sum() - 0.5 * (gap**2).sum()

    def funnel(z: Any) -> Any:
        return -(z[0] ** 2) / 18 - 0.5 * (z[1:] ** 2).sum() * jnp.exp(-z[0]) - 4.5 * z[0]

    target, kind = task.split()
    density = {"gaussian": gaussian, "schools": schools, "funnel": funnel}[target]
    size = {"gaussian": D, "schools": 10, "funnel": 10}[target]
    made = blackjax.nuts if kind == "nuts" else blackjax.hmc
    extra = {} if kind == "nuts" else {"num_integration_steps": leapfrogs}
    tuning = blackjax.window_adaptation(made, density, is_mass_matrix_diagonal=not dense, **extra)

    def one(key: Any) -> Any:
        first, second, third = jax.random.split(key, 3)
        (state, found), _ = tuning.run(first, jax.random.normal(second, (size,)), num_steps=warmup)
        kernel = made(density, **found)

        def step(state: Any, key: Any) -> Any:
            state, _ = kernel.step(key, state)
            return state, state.position

        return jax.lax.scan(step, state, jax.random.split(third, draws))[1]

    run = jax.jit(jax.vmap(one))
    jax.block_until_ready(run(jax.random.split(jax.random.key(0), count)))
    begin = time.perf_counter()
    found = jax.block_until_ready(run(jax.random.split(jax.random.key(1), count)))
    seconds = time.perf_counter() - begin
    return (*_judged(np.array(found), seconds, whole=whole), float("nan"))


def _judged(draws: Any, seconds: float, *, whole: bool) -> tuple[float, ...]:
    """Return smallest bulk and tail ESS, seconds and largest R-hat; the bulk alone if not `whole`.

    ArviZ needs longer to judge a million draws than they took.
    """
    warnings.simplefilter("ignore")
    import arviz

    entries = [draws[..., i] for i in range(draws.shape[2])]
    bulk = min(float(arviz.ess(x, method="bulk")) for x in entries)
    if not whole:
        return bulk, float("nan"), seconds, float("nan")
    tail = min(float(arviz.ess(x, method="tail")) for x in entries)
    return bulk, tail, seconds, max(float(arviz.rhat(x)) for x in entries)


def best_of(side: str, task: str) -> tuple[int, ...]:
    """Return the settings of the most bulk ESS/s that a side has for a task, tried in one process."""
    settings = {"ours": OURS, "peer": PEERS}[side][task]
    code = f"from bench.chains import {side} as run\n"
    if side == "ours":
        code += f"run({task!r}, 32, 20, 5, whole=False)\n"
    code += f"for one in {settings!r}: print('rate', *run({task!r}, *one, whole=False))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("rate")]
    rates = [float(words[0]) / float(words[2]) for words in lines]
    return settings[rates.index(max(rates))]


def alone(side: str, task: str, *sizes: int) -> tuple[float, ...]:
    """Return what a side measured in a process of its own: the threads of one would slow the other."""
    code = f"from bench.chains import {side}; print(*{side}({task!r}, *{sizes!r}))"
    if side == "ours":
        code = f"from bench.chains import ours; ours({task!r}, 32, 20, 5); print(*ours({task!r}, *{sizes!r}))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(float(word) for word in done.stdout.split()[-5:])


def gradients(task: str) -> None:
    """Print ESS/s of both sides, the best of their sizes, over rounds in turn."""
    best = {side: best_of(side, task) for side in ("ours", "peer")}
    rounds = [{side: alone(side, task, *best[side]) for side in best} for _ in range(ROUNDS)]
    for side, name in (("ours", "ours"), ("peer", "BlackJAX")):
        found = [one[side] for one in rounds]
        rates, last = sorted(map(_rate, found)), found[-1]
        count, warmup, draws, *_ = best[side]
        print(
            f"{task}, {name}: smallest bulk ESS/s {statistics.median(rates):,.0f} [{rates[0]:,.0f}, "
            f"{rates[-1]:,.0f}], tail {last[1] / last[2]:,.0f}; {count} chains, {warmup} + {draws} steps, "
            f"{last[2]:.2f} s, R-hat {last[3]:.3f}, nested {last[4]:.3f}, settings {best[side]}"
        )
    mine = statistics.median(_rate(one["ours"]) for one in rounds)
    ratios = sorted(_rate(one["ours"]) / _rate(one["peer"]) for one in rounds)
    middle, goal = statistics.median(ratios), GOALS[task]
    print(
        f"{task}, ratio {middle:.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}], goal 1 and {goal:,}: "
        f"{'met' if mine >= goal and middle >= 1 else 'MISSED'}"
    )


def _rate(found: tuple[float, ...]) -> float:
    """Return smallest bulk effective sample size a second."""
    return found[0] / found[2]


def funnel() -> None:
    """Print R-hat of both sides on the funnel."""
    task = "funnel nuts"
    mine, theirs = alone("ours", task, *OURS[task][0]), alone("peer", task, *PEERS[task][0])
    print(
        f"funnel, largest R-hat: ours {mine[3]:.3f}, nested {mine[4]:.3f}, BlackJAX {theirs[3]:.3f}; above "
        f"1.01 says that chains do not mix: {'met' if mine[3] > 1.01 and mine[4] > 1.01 else 'MISSED'}"
    )


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(THREADS)
    wanted = sys.argv[1:] or ["gibbs", *GOALS, "funnel"]
    for name in itertools.chain(wanted):
        {"gibbs": gibbs, "funnel": funnel}.get(name, lambda name=name: gradients(name))()


if __name__ == "__main__":
    main()
