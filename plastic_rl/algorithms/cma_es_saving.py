"""The checkpoint of CMA-ES: from which evolution goes on byte for byte, as plain arrays and documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from plastic_rl.algorithms.saving import count_in, counters_of, describe, parameters_of, restore_common, streams_of
from plastic_rl.checkpoint import Checkpoint
from plastic_rl.errors import damage_is_refused

if TYPE_CHECKING:
    from plastic_rl.algorithms.cma_es import CMAES


def checkpoint_of(algorithm: CMAES) -> Checkpoint:
    """Everything needed to go on from here, between two generations."""
    search = algorithm.search
    return Checkpoint(
        tensors={
            "params": parameters_of(algorithm),
            "optimizer": {name: torch.from_numpy(array) for name, array in search.tensors().items()},
            "state": {},
        },
        documents={
            "rng": streams_of(algorithm),
            "env": None,
            "algorithm": {
                **counters_of(algorithm),
                "iterations": algorithm.iterations,
                "exams": algorithm.exams,
                "score_buffer": list(algorithm.score_buffer),
                "search": search.document(),
            },
        },
        config=describe(algorithm),
    )


def restore(algorithm: CMAES, checkpoint: Checkpoint) -> None:
    """Go on from `checkpoint`.

    A checkpoint that holds only what acts (an exported agent's) begins a new search around its parameters.

    Raises:
        CheckpointError: If the checkpoint belongs to another network, or lacks a part, or a part does not fit.
    """
    with damage_is_refused(f"{checkpoint.source} does not fit this {type(algorithm).__name__}"):
        counters = checkpoint.documents["algorithm"]
        restore_common(algorithm, checkpoint)
        algorithm.exams = count_in(counters, "exams")
        if checkpoint.tensors["optimizer"]:
            checkpoint.check_finite("optimizer")
            arrays = {name: np.asarray(tensor) for name, tensor in checkpoint.tensors["optimizer"].items()}
            algorithm.search.restore(arrays, counters["search"])
        else:
            algorithm.begin_search()
        algorithm.examiner = algorithm.make_examiner()
