"""`Search`: the evolving Gaussian distribution of genes, on the `cma` package, with restarts.

References:
    Hansen & Ostermeier 2001, doi 10.1162/106365601750190398 (CMA-ES); Ros & Hansen 2008, doi
    10.1007/978-3-540-87700-4_30 (separable); Auger & Hansen 2005, doi 10.1109/CEC.2005.1554902 (IPOP); Hansen 2009, doi
    10.1145/1570256.1570333 (BIPOP).

Data flow of a generation: `ask` -> genes `(P, N)` -> fitness `(P,)` -> `tell`. Between generations `tensors` and
`document` hold everything that the future depends on, and `restore` puts it back to the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from plastic_rl.algorithms.evolution.genome import Genome
from plastic_rl.arrays import FloatArray
from plastic_rl.checkpoint import count_in
from plastic_rl.errors import NonFiniteError

Covariance = Literal["auto", "full", "separable"]
Restarts = Literal["none", "ipop", "bipop"]

FULL_UP_TO = 800
"""Genes up to which `auto` keeps the full covariance, whose eigenvectors soon take longer than the lifetimes do."""
MAX_DOUBLINGS = 9
"""Restarts that double the population; later ones have the last size."""
LARGEST = 1e30
"""Genes and deviations below this fit into float32, with room for a few products."""
SMALLEST = 1e-12
"""The shortest axis is kept above this times the initial step size."""
_BUDGETS = {"maxiter", "maxfevals", "timeout", "ftarget", "callback"}
_FULL_ARRAYS = ("C", "B", "D")
_PATHS = ("mean", "pc", "pc2")


class Search:
    """One search, restarts included. Larger fitness is better.

    Args:
        genome: Start, scale and bounds of the genes.
        sigma, population_size, covariance, restarts: See `CMAES`; the population is that of the first run.
        seed: Of the search's own random stream; NumPy's global one is not touched.

    >>> import numpy as np
    >>> from plastic_rl.algorithms.evolution.genome import Genome
    >>> start, ones = np.full(3, 2.0), np.ones(3)
    >>> genome = Genome(("x",), ((3,),), start, ones, -np.inf * ones, np.inf * ones)
    >>> search = Search(genome, sigma=0.5, population_size=8, seed=1)
    >>> for _ in range(60):
    ...     genes = search.ask()
    ...     search.tell(-(genes**2).sum(1))
    >>> bool(abs(search.mean).max() < 1e-3)
    True
    """

    def __init__(
        self,
        genome: Genome,
        *,
        sigma: float,
        population_size: int,
        covariance: Covariance = "auto",
        restarts: Restarts = "none",
        seed: int = 0,
    ) -> None:
        self.genome = genome
        self.sigma0 = float(sigma)
        self.first_population = population_size
        self.separable = covariance == "separable" or (covariance == "auto" and genome.size > FULL_UP_TO)
        self.restarts = restarts
        self.generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        self.run = 0
        self.large_runs = 0
        self.spent = {"small": 0, "large": 0}
        self.regime = "large"
        self._asked: list[FloatArray] = []
        self._begin(genome.start, population_size, self.sigma0)

    # --- a generation ----------------------------------------------------------------------------------------------

    @property
    def population_size(self) -> int:
        """Individuals of the present run's generations, `P`."""
        return int(self.strategy.sp.popsize)

    @property
    def generation(self) -> int:
        """Generations of the present run so far."""
        return int(self.strategy.countiter)

    @property
    def mean(self) -> FloatArray:
        """Genes of the distribution's mean, within the bounds, `(N,)`."""
        return into_bounds(np.asarray(self.strategy.mean), self.genome)

    def ask(self) -> FloatArray:
        """Draw a population, within the bounds, `(P, N)`."""
        self._asked = self.strategy.ask()
        return into_bounds(np.asarray(self._asked), self.genome)

    def tell(self, fitness: FloatArray) -> None:
        """Move the distribution towards the individuals of the last `ask` that were fitter.

        Args:
            fitness: `(P,)`, finite; larger is better.

        Raises:
            ValueError: If it is not finite (the `cma` package would take NaN for the median).
            NonFiniteError: If the distribution has left what parameters can hold.
        """
        if not np.isfinite(fitness).all():
            raise ValueError(f"fitness must be finite, got {fitness}")
        self.strategy.tell(self._asked, (-fitness).tolist())
        self._asked = []
        self._check_extent()
        self._settle()
        if self.restarts != "none" and set(self.strategy.stop()) - _BUDGETS:
            self._restart()

    def statistics(self) -> dict[str, float]:
        """Step size, ratio of the longest to the shortest axis, and the mean standard deviation of a gene."""
        strategy = self.strategy
        deviations = self._deviations()
        axes = deviations if self.separable else np.asarray(strategy.D) * np.ones(self.genome.size)
        return {
            "sigma": float(strategy.sigma),
            "axis_ratio": float(axes.max() / axes.min()),
            "gene_std": float(deviations.mean()),
        }

    def _check_extent(self) -> None:
        extent = max(float(np.abs(self.strategy.mean).max()), float(self._deviations().max()))
        if not extent < LARGEST:
            raise NonFiniteError(
                f"the search has diverged: a gene or its deviation has reached {extent:.3g} in generation "
                f"{self.generation} of run {self.run}, with step size {self.strategy.sigma:.3g}. Where fitness keeps "
                "rising with a parameter, give it bounds (groups: {NAME: {low: ..., high: ...}})"
            )

    def _deviations(self) -> FloatArray:
        strategy = self.strategy
        # `variances` are those of the sampler, before it is stretched by the scales of the coordinates.
        spread = np.sqrt(strategy.sm.variances) * np.asarray(strategy.sigma_vec.scaling)
        return np.asarray(strategy.sigma * spread * np.ones(self.genome.size))

    # --- runs ------------------------------------------------------------------------------------------------------

    def _randn(self, *shape: int) -> FloatArray:
        return self.generator.standard_normal(shape)

    def _begin(self, start: FloatArray, population_size: int, sigma: float) -> None:
        # Here, since it brings matplotlib along, which whoever trains by gradient can do without.
        import cma
        from cma.sigma_adaptation import CMAAdaptSigmaCSA

        scale = self.genome.scale
        options = {
            # A seed of NaN leaves NumPy's global generator alone.
            "seed": math.nan,
            "randn": self._randn,
            "popsize": population_size,
            "CMA_diagonal": self.separable,
            "CMA_stds": None if (scale == 1).all() and not self.separable else scale,
            # Cumulative step-size adaptation at any size, no mirrored samples and no linear transformations: what
            # cannot be stored and restored as a few arrays stays off.
            "AdaptSigma": CMAAdaptSigmaCSA,
            "CMA_mirrors": 0,
            "conditioncov_alleviate": [1e8, 0],
            # Ties are common where rewards are counted.
            "tolflatfitness": 10,
            # A search that goes on after it has converged must not shrink to nothing.
            "mindx": SMALLEST * sigma,
            "verbose": -10,
            "verb_log": 0,
            "verb_disp": 0,
            "signals_filename": "",
        }
        self.strategy = cma.CMAEvolutionStrategy(start, sigma, options)
        self._settle()

    def _settle(self) -> None:
        """Lay out the sampler's matrices in one way, on which the last bits of products depend."""
        sampler = self.strategy.sm
        if not self.separable:
            for name in _FULL_ARRAYS:
                setattr(sampler, name, np.ascontiguousarray(getattr(sampler, name)))
        self.strategy._updateBDfromSM(sampler)

    def _restart(self) -> None:
        """Begin the next run, somewhere else in the region of the first start."""
        self.spent[self.regime] += self.generation * self.population_size
        self.run += 1
        small = self.restarts == "bipop" and self.large_runs > 0 and self.spent["small"] < self.spent["large"]
        sigma = self.sigma0
        if small:
            self.regime = "small"
            share = self.generator.uniform() ** 2
            largest = self.first_population * 2**self.large_runs
            size = int(self.first_population * (0.5 * largest / self.first_population) ** share)
            sigma *= 10 ** (-2 * self.generator.uniform())
        else:
            self.regime = "large"
            # A fitness that says nothing would end run after run, and double for ever.
            self.large_runs = min(self.large_runs + 1, MAX_DOUBLINGS)
            size = self.first_population * 2**self.large_runs
        offset = self.sigma0 * self.genome.scale * self._randn(self.genome.size)
        self._begin(self.genome.start + offset, max(size, 4), sigma)

    # --- state -----------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, FloatArray]:
        """The arrays of the distribution (between `tell` and `ask`), as copies."""
        strategy, sampler = self.strategy, self.strategy.sm
        arrays = {name: getattr(strategy, name) for name in _PATHS}
        arrays["path_sigma"] = strategy.adapt_sigma.ps
        arrays["scaling"] = strategy.sigma_vec.scaling
        arrays["stagnant_mean"] = strategy._stoptolxstagnation.x
        if self.separable:
            arrays["deviations"] = np.sqrt(sampler.variances)
        else:
            arrays |= {name: getattr(sampler, name) for name in _FULL_ARRAYS}
        fit = strategy.fit
        arrays |= {"hist": fit.hist, "hist_best": fit.histbest, "hist_median": fit.histmedian}
        return {name: np.array(array, dtype=np.float64) for name, array in arrays.items()}

    def document(self) -> dict[str, Any]:
        """Everything else that the future of the search depends on, as plain data."""
        strategy, sampler, fit = self.strategy, self.strategy.sm, self.strategy.fit
        stagnation = strategy._stoptolxstagnation
        return {
            "random": self.generator.bit_generator.state,
            "run": self.run,
            "large_runs": self.large_runs,
            "spent": dict(self.spent),
            "regime": self.regime,
            "population_size": self.population_size,
            "sigma0": float(strategy.sigma0),
            "sigma": float(strategy.sigma),
            "generation": self.generation,
            "evaluations": int(strategy.countevals),
            "uniform_scaling": bool(strategy.sigma_vec.is_identity),
            "step_delta": float(strategy.adapt_sigma.delta),
            "tolupsigma": float(strategy.opts["tolupsigma"]),
            "sampler": {} if self.separable else {name: int(getattr(sampler, name)) for name in _COUNTERS},
            "stagnation": [int(stagnation.count), int(stagnation.count_x)],
            "best": [float(strategy.best.f), strategy.best.evals, strategy.best.evalsall],
            "fit": {name: None if (value := getattr(fit, name)) is None else float(value) for name in _FIT},
            "flat": int(fit.flatfit_iterations),
            "worse": int(fit.median_got_worse),
        }

    def restore(self, tensors: Mapping[str, FloatArray], document: Mapping[str, Any]) -> None:
        """Go on from where `tensors` and `document` were taken.

        Raises:
            ValueError, KeyError: If they are not those of a search of this genome and population.
        """

        def number(name: str) -> float:
            value = float(document[name])
            if not 0 < value < math.inf:
                raise ValueError(f"{name!r} must be a number above 0, got {value}")
            return value

        self.run, self.large_runs = count_in(document, "run"), count_in(document, "large_runs")
        population, first = count_in(document, "population_size"), self.first_population
        if not (self.large_runs <= MAX_DOUBLINGS and first <= population <= first * 2**self.large_runs):
            raise ValueError(
                f"a search that began with {first} individuals cannot have {population} after {self.large_runs} "
                "restarts that double them"
            )
        self.spent = {name: count_in(document["spent"], name) for name in ("small", "large")}
        self.regime = str(document["regime"])
        self._begin(self.genome.start, population, number("sigma0"))
        self.generator.bit_generator.state = document["random"]
        strategy, sampler = self.strategy, self.strategy.sm

        def own(name: str, shape: tuple[int, ...], *, positive: bool = False) -> FloatArray:
            array = np.array(tensors[name], order="C")
            if array.shape != shape or array.dtype != np.float64:
                raise ValueError(f"{name!r} must be float64 of shape {shape}, got {array.dtype} of shape {array.shape}")
            if positive and not (array > 0).all():
                raise ValueError(f"{name!r} must be above 0, got {array.min()}")
            return array

        size = self.genome.size
        for name in _PATHS:
            setattr(strategy, name, own(name, (size,)))
        strategy.mean_old = strategy.mean_after_tell = strategy.mean.copy()
        strategy.adapt_sigma.ps = own("path_sigma", (size,))
        strategy.adapt_sigma.delta = number("step_delta")
        strategy.sigma = number("sigma")
        strategy.countiter, strategy.countevals = count_in(document, "generation"), count_in(document, "evaluations")
        strategy.adapt_sigma._ps_updated_iteration = strategy.countiter
        strategy.opts["tolupsigma"] = number("tolupsigma")
        uniform = bool(document["uniform_scaling"])
        scaling = np.shape(tensors["scaling"])
        strategy.sigma_vec.scaling = own("scaling", scaling if scaling == () else (size,), positive=True)
        strategy.sigma_vec.is_identity, strategy.sigma_vec.dim = uniform, int(np.prod(scaling))
        if self.separable:
            deviations = own("deviations", (size,), positive=True)
            if (deviations != 1).any():
                sampler.standard_deviations = deviations
        else:
            sampler.C, sampler.B = own("C", (size, size)), own("B", (size, size))
            sampler.D = own("D", (size,), positive=True)
            for name in _COUNTERS:
                setattr(sampler, name, count_in(document["sampler"], name))
        strategy._stoptolxstagnation.x = own("stagnant_mean", (size,))
        strategy._stoptolxstagnation.count, strategy._stoptolxstagnation.count_x = map(int, document["stagnation"])
        best, evals, evalsall = document["best"]
        strategy.best.f = float(best)
        strategy.best.evals, strategy.best.evalsall = (None if n is None else int(n) for n in (evals, evalsall))
        fit = strategy.fit
        fit.hist, fit.histbest, fit.histmedian = (
            own(name, (np.size(tensors[name]),)).tolist() for name in ("hist", "hist_best", "hist_median")
        )
        for name in _FIT:
            value = document["fit"][name]
            before_the_first = value is None and getattr(fit, name) is None
            setattr(fit, name, None if before_the_first else float(value))
        fit.flatfit_iterations, fit.median_got_worse = count_in(document, "flat"), count_in(document, "worse")
        # Made by the very first `ask`; it only measures time.
        from cma.utilities.utils import ElapsedWCTime

        strategy.timer = ElapsedWCTime()
        strategy._updateBDfromSM(sampler)


_COUNTERS = ("last_update", "count_tell", "count_eigen")
_FIT = ("median", "median0", "median_min", "median_previous")


def into_bounds(genes: FloatArray, genome: Genome) -> FloatArray:
    """Mirror genes `(.., N)` at the bounds until they lie within them; those that do stay as they are.

    >>> import numpy as np
    >>> from plastic_rl.algorithms.evolution.genome import Genome
    >>> low, high = np.array([0.0, 0.0, -np.inf]), np.array([1.0, np.inf, 2.0])
    >>> genome = Genome(("x",), ((3,),), np.zeros(3), np.ones(3), low, high)
    >>> into_bounds(np.array([1.25, -3.0, 2.5]), genome).tolist()
    [0.75, 3.0, 1.5]
    """
    outside = ~((genes >= genome.low) & (genes <= genome.high))
    out = genes[outside]
    low, high = (np.broadcast_to(bound, genes.shape)[outside] for bound in (genome.low, genome.high))
    both = np.isfinite(low) & np.isfinite(high)
    width = np.where(both, high - low, 1.0)
    base = np.where(np.isfinite(low), low, 0.0)
    offset = np.mod(out - base, 2 * width)
    folded = base + np.where(offset > width, 2 * width - offset, offset)
    top = np.where(np.isfinite(high), high, 0.0)
    one_sided = np.where(np.isfinite(low), base + np.abs(out - base), top - np.abs(top - out))
    mirrored = genes.copy()
    mirrored[outside] = np.clip(np.where(both, folded, one_sided), low, high)
    return mirrored
