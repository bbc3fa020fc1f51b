"""Fitness of populations: chunks of two sizes, and individuals whose networks blow up."""

from __future__ import annotations

import numpy as np
import pytest

from plastic_rl.algorithms import CMAES
from plastic_rl.algorithms.fitness import Exam, Sitting, examine
from plastic_rl.engine import SerialEngine
from plastic_rl.errors import NonFiniteError


def make(individuals_per_chunk: int = 64) -> CMAES:
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
    )


def test_an_individual_whose_network_blows_up_is_named() -> None:
    evolution = make()
    genes = np.random.default_rng(0).normal(size=(6, evolution.genome.size))
    place = evolution.genome.names.index("network.log_step")
    sizes = [int(np.prod(shape)) for shape in evolution.genome.shapes]
    genes[3, sum(sizes[:place]) : sum(sizes[: place + 1])] = 100.0
    assert evolution.examiner is not None
    exam = Exam(4, 7, 2)
    with pytest.raises(
        NonFiniteError, match=r"individual 13 in generation 7 became NaN or infinite \(seed 4, train task 4000000014"
    ):
        evolution.examiner(Sitting(exam, 10, genes))
    evolution.examiner(Sitting(exam, 10, np.delete(genes, 3, axis=0)))


def test_chunks_of_two_sizes_keep_their_environments() -> None:
    evolution = make(4)
    assert evolution.examiner is not None
    genes = np.random.default_rng(1).normal(size=(6, evolution.genome.size))
    with SerialEngine() as engine:
        first = examine(evolution.examiner, Exam(4, 0, 2), genes, 4, engine)
        made = dict(evolution.examiner._envs)
        again = examine(evolution.examiner, Exam(4, 0, 2), genes, 4, engine)
    assert sorted(made) == [4, 8]
    assert all(evolution.examiner._envs[rows] is env for rows, env in made.items())
    assert np.array_equal(first.reward, again.reward)


def test_runs_of_other_seeds_and_later_generations_meet_other_tasks() -> None:
    met = [set(Exam(seed, generation, 3).tasks) for seed in range(3) for generation in range(4)]
    assert len(set.union(*met)) == 3 * 4 * 3
    assert Exam(0, 2, 3).tasks == range(6, 9)
