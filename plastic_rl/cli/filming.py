"""Animated pictures of a trained agent's lifetimes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plastic_rl.checkpoint.files import file_named
from plastic_rl.envs import make_vector
from plastic_rl.errors import ConfigError
from plastic_rl.evaluation.lifetimes import acting, finite_lifetimes, view_of
from plastic_rl.evaluation.network_view import Glimpse, beside, panels
from plastic_rl.experiment import TrainedAgent
from plastic_rl.rollout import PolicyActor, TaskRows

SMALLEST = 320
"""Pixels that the longer side of a video has at least."""


def film(
    trained: TrainedAgent,
    output: Path,
    *,
    lifetimes: int,
    split: str,
    fps: float,
    max_steps: int,
    network: bool = False,
) -> int:
    """Write an animated GIF of the first `lifetimes` lifetimes on which `split` is scored; return its frames' number.

    With `network` each picture of the environment has beside it what the network does with that observation.

    Raises:
        ConfigError: If the environment cannot be drawn, or `output` is no GIF; or if the agent has no network of this
            package to be drawn.
    """
    if output.suffix != ".gif":
        raise ConfigError(f"the video is an animated GIF: give a name that ends in .gif, got {output}")
    environment = trained.config.environment
    seed = trained.config.evaluation.seed
    tasks = environment.distribution().tasks(split, 0, lifetimes)
    agent = trained.load()
    frames: list[npt.NDArray[np.uint8]] = []
    env = make_vector(
        environment.id,
        1,
        split=split,
        render_mode="rgb_array",
        **environment.options,
    )
    with closing(env):
        view = view_of(agent, environment.id, env)
        for place, task in enumerate(tasks):
            rows = TaskRows(env, [task], [seed + place])
            shown = [_frame(env.render(), environment.id)]
            glimpses: list[Glimpse] = []
            with acting(agent, view, env, [task], first=place, seed=seed) as (actor, state):
                if network and not isinstance(actor, PolicyActor):
                    raise ConfigError("only agents with a network of plastic_rl can be drawn with --network")
                for step in finite_lifetimes(rows, actor, state):
                    if network and isinstance(actor, PolicyActor):
                        seen = actor.seen(step.observation, step.starts)
                        glimpses.append(Glimpse.of(actor.policy.inside(actor.params, seen[0], state, seen[1])))
                        state = dict(step.acted.state)  # as it is now: who acts in place goes on with it
                    shown.append(_frame(env.render(), environment.id))
                    if step.time + 1 == max_steps:
                        break
            if network:
                # The last picture is of an observation that nobody acts on.
                drawn = panels(glimpses)
                factor = _factor(shown[0].shape[:2])
                shown = [
                    beside(one.repeat(factor, 0).repeat(factor, 1), panel)
                    for one, panel in zip(shown, [*drawn, drawn[-1]], strict=True)
                ]
            frames += shown
    _write(frames, output, fps)
    return len(frames)


def _frame(rendered: Any, env_id: str) -> npt.NDArray[np.uint8]:
    picture = rendered[0] if isinstance(rendered, tuple | list) and rendered else rendered
    if not isinstance(picture, np.ndarray) or picture.ndim != 3:
        raise ConfigError(f"{env_id} does not draw itself as a picture (render mode rgb_array)")
    return picture


def _factor(size: Sequence[int]) -> int:
    """How much a picture is enlarged: by whole pixels only, so that edges stay sharp (and the file small)."""
    return -(-SMALLEST // max(size))


def _write(frames: list[npt.NDArray[np.uint8]], output: Path, fps: float) -> None:
    from PIL import Image

    output.parent.mkdir(parents=True, exist_ok=True)
    # One palette for all frames, so that colours don't flicker.
    palette = Image.fromarray(np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]])).quantize(64)
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    factor = _factor(pictures[0].size)
    if factor > 1:
        size = (pictures[0].width * factor, pictures[0].height * factor)
        pictures = [picture.resize(size, Image.Resampling.NEAREST) for picture in pictures]
    with file_named(output):
        pictures[0].save(output, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)
