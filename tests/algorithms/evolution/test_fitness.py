"""Fitness of populations: chunks of two sizes, and individuals whose networks blow up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from plastic_rl.algorithms import CMAES
from plastic_rl.algorithms.evolution.fitness import (
    GenerationSpec,
    PopulationChunk,
    Returns,
    evaluate_population,
    noise_ahead,
)
from plastic_rl.algorithms.evolution.genome import FloatArray
from plastic_rl.engine import SerialEngine
from plastic_rl.errors import NonFiniteError


def make(individuals_per_chunk: int = 64, **kwargs: Any) -> CMAES:
    network = {"kind": "rule_table", "hidden_size": 6, "cap": 2, "rounds": 1, "inputs": "all"}
    return CMAES(
        "PlasticPolicy",
        "plastic_rl/ReversalBandit-v0",
        env_kwargs={"steps": 20},
        population_size=6,
        lifetimes=2,
        individuals_per_chunk=individuals_per_chunk,
        policy_kwargs={"network": network},
        seed=4,
        **kwargs,
    )


def drawn(evolution: CMAES, broken: Sequence[int] = ()) -> FloatArray:
    """Genes of 6 individuals; the steps of those that are `broken` are so large that their weights overflow."""
    genes = np.random.default_rng(0).normal(size=(6, evolution.genome.size))
    place = evolution.genome.names.index("network.log_step")
    sizes = [int(np.prod(shape)) for shape in evolution.genome.shapes]
    genes[broken, sum(sizes[:place]) : sum(sizes[: place + 1])] = 100.0
    return genes


def test_an_individual_whose_network_blows_up_rests_and_ranks_last() -> None:
    evolution = make()
    assert evolution.evaluator is not None
    well = evolution.evaluator(PopulationChunk(GenerationSpec(4, 7, 2), 10, drawn(evolution)))
    returns = evolution.evaluator(PopulationChunk(GenerationSpec(4, 7, 2), 10, drawn(evolution, [3])))
    assert well.usable.all()
    assert returns.usable.tolist() == [True, True, True, False, True, True]
    # It rests from the step on in which its answer was not finite; the others live as they would beside any other.
    assert (returns.steps[3] < 20).all()
    for name in ("reward", "late", "score", "steps"):
        one, other = getattr(well, name), getattr(returns, name)
        assert np.array_equal(np.delete(one, 3, axis=0), np.delete(other, 3, axis=0))
    for statistic in ("mean", "late_half", "worst_quartile"):
        fitness = returns.fitness(statistic)
        assert fitness[3] == np.delete(fitness, 3).min() - 1
        assert np.array_equal(np.delete(fitness, 3), np.delete(well.fitness(statistic), 3))


def test_individuals_that_blow_up_are_counted_and_named_and_evolution_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    evolution = make(verbose=1)
    evolution.search.ask = lambda: drawn(evolution, [1, 3, 4])  # type: ignore[method-assign]
    evolution.search.tell = lambda fitness: told.append(fitness)  # type: ignore[method-assign]
    told: list[FloatArray] = []
    evolution.learn(generations=1, log_interval=None)
    assert "networks of individuals 1, 3, 4 of 6 in generation 0 (seed 4) became NaN" in capsys.readouterr().out
    assert evolution.logger.name_to_value["fitness/non_finite"] == 3
    # What is recorded is of those that lived.
    assert evolution.logger.name_to_value["fitness/mean"] == pytest.approx(told[0][[0, 2, 5]].mean())
    assert told[0][[1, 3, 4]].tolist() == [told[0][[0, 2, 5]].min() - 1] * 3


def test_a_generation_of_which_most_blow_up_ends_the_run() -> None:
    evolution = make()
    evolution.search.ask = lambda: drawn(evolution, [0, 1, 3, 4])  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError) as raised:
        evolution.learn(generations=1)
    message = str(raised.value)
    assert "individuals 0, 1, 3, 4 of 6 in generation 0 (seed 4)" in message
    assert "network.log_step (100)" in message
    assert "algorithm.groups: {network.log_step: {low: ..., high: ...}}" in message


@pytest.mark.parametrize("rule", ["differentiable_plasticity", "oja"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_unbounded_traces_do_not_end_evolution(rule: str, seed: int) -> None:
    network = {"rule": rule, "hidden_size": 10}
    agent = CMAES(
        "PlasticPolicy",
        "plastic_rl/ReversalBandit-v0",
        population_size=10,
        seed=seed,
        policy_kwargs={"network": network},
    )
    agent.learn(generations=50)
    assert agent.iterations == 50
    assert all(parameter.isfinite().all() for parameter in agent.policy.parameters())


def test_chunks_of_two_sizes_keep_their_environments() -> None:
    evolution = make(4)
    assert evolution.evaluator is not None
    genes = np.random.default_rng(1).normal(size=(6, evolution.genome.size))
    with SerialEngine() as engine:
        first = evaluate_population(evolution.evaluator, GenerationSpec(4, 0, 2), genes, 4, engine)
        made = dict(evolution.evaluator._envs)
        again = evaluate_population(evolution.evaluator, GenerationSpec(4, 0, 2), genes, 4, engine)
    assert sorted(made) == [4, 8]
    assert all(evolution.evaluator._envs[rows] is env for rows, env in made.items())
    assert np.array_equal(first.reward, again.reward)


def test_runs_of_other_seeds_and_later_generations_meet_other_tasks() -> None:
    met = [set(GenerationSpec(seed, generation, 3).tasks) for seed in range(3) for generation in range(4)]
    assert len(set.union(*met)) == 3 * 4 * 3
    assert GenerationSpec(0, 2, 3).tasks == range(6, 9)


def test_each_generation_has_noise_of_its_own_and_the_agents_is_not_the_environments() -> None:
    specs = [GenerationSpec(seed, generation, 2) for seed in (4, 5) for generation in (0, 1)]
    environments = {word for spec in specs for word in spec.environment_seeds()}
    agents = {spec.agent_generator().initial_seed() for spec in specs}
    assert (len(environments), len(agents)) == (8, 4)
    # A seed of 63 bits is made of two words of 32.
    assert not environments & {seed >> 31 for seed in agents}


def test_noise_that_is_drawn_ahead_is_drawn_anew_after_each_block() -> None:
    evolution = make()
    noise = noise_ahead(evolution.policy, (3, 2), 4, torch.Generator().manual_seed(1))
    seen = [noise(step).clone() for step in range(12)]
    assert len({str(each.tolist()) for each in seen}) == 12
    assert all(torch.equal(each, each[:1].expand_as(each)) for each in seen)  # the same for all individuals


def test_one_lifetime_that_is_not_finite_is_enough_to_rank_last() -> None:
    reward = np.array([[1.0, 2.0], [9.0, 9.0], [3.0, 4.0]])
    finite = np.array([[True, True], [True, False], [True, True]])
    returns = Returns(reward, late=reward, score=reward, steps=np.ones((3, 2), np.int64), finite=finite)
    assert returns.usable.tolist() == [True, False, True]
    assert returns.fitness("mean").tolist() == [1.5, 0.5, 3.5]


@pytest.mark.parametrize(("steps", "usable"), [(2, True), (3, False)])
def test_what_a_network_carries_along_is_looked_at_when_its_lifetime_ends(steps: int, usable: bool) -> None:
    """With rate 1e38 and gain 0 the trace overflows in the third step, and no answer shows it before the fourth."""
    evolution = CMAES(
        "PlasticPolicy",
        "plastic_rl/ReversalBandit-v0",
        env_kwargs={"steps": steps},
        population_size=4,
        lifetimes=2,
        evolve=["network.eta", "network.alpha", "network.input_bias"],
        policy_kwargs={"network": {"rule": "differentiable_plasticity", "hidden_size": 3}},
        seed=4,
    )
    assert evolution.evaluator is not None
    values = {"network.eta": 1e38, "network.alpha": 0.0, "network.input_bias": 1.0}
    genes = np.concatenate(
        [
            np.full(int(np.prod(shape)), values[name])
            for name, shape in zip(evolution.genome.names, evolution.genome.shapes, strict=True)
        ]
    )
    returns = evolution.evaluator(PopulationChunk(GenerationSpec(4, 0, 2), 0, genes[None]))
    assert returns.steps.tolist() == [[steps, steps]]
    assert returns.usable.tolist() == [usable]
