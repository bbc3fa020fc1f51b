"""`plastic-rl neurons` and `plastic-rl rules`: what they print and draw, those of plugins included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plastic_rl.envs import plugins
from plastic_rl.evaluation.neuron_view import view_neuron
from plastic_rl.neurons import COMPETITIONS, DENDRITES, NEURONS
from plastic_rl.plasticity import PARTS, RULES, TERMS

PLUGIN = '''
from typing import Annotated, Any

import torch
from pydantic import Field

from plastic_rl.config.signatures import handed_on
from plastic_rl.neurons import NEURONS, Neuron, number
from plastic_rl.plasticity import RULES, TERMS, SynapseConfig, Term


class Softplus(Neuron):
    """A plugged-in unit: `y = log(1 + exp(gain I)) / gain`.

    Args:
        gain: How sharp its bend is.
    """

    def __init__(
        self, step_size: float = 1.0, *, gain: Annotated[float, Field(ge=0.1, le=50)] = 4.0, **shared: Any
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def step(self, params, drive, state):
        gain = number(params, "gain")
        return torch.log1p(torch.exp(gain * drive.current)) / gain, {}


class AntiHebb(Term):
    """A plugged-in term: `D = -y xT`."""

    def change(self, params, pre, post, trace, state):
        return -post.unsqueeze(-1) * pre.unsqueeze(-2)


NEURONS.register("tests_softplus", Softplus)
TERMS.register("tests_anti_hebb", AntiHebb)
RULES.register("tests_rule", SynapseConfig(term="tests_anti_hebb", bound="soft_clip"))
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A file that registers a neuron, a term and a rule; they are gone afterwards."""
    # Worker processes that other tests start would import all of these files, which register the same names.
    monkeypatch.setattr(plugins, "_LOADED", list(plugins._LOADED))
    (tmp_path / "parts.py").write_text(PLUGIN)
    yield tmp_path / "parts.py"
    for registry, name in ((NEURONS, "tests_softplus"), (RULES, "tests_rule"), (TERMS, "tests_anti_hebb")):
        registry._entries.pop(name, None)  # type: ignore[attr-defined]


def widest(text: str) -> int:
    return max(map(len, text.splitlines()))


def test_lists_have_a_line_for_everything_within_80_columns(call: Any, plugin: Path) -> None:
    code, out, err = call("neurons", "list", "--plugin", plugin)
    assert code == 0, err
    assert {line.split()[0] for line in out.splitlines() if line[:3].strip()} >= {*NEURONS, "tests_softplus"}
    assert "A plugged-in unit" in out
    code, rules, err = call("rules", "list", "--plugin", plugin)
    assert code == 0, err
    listed = {line.split()[0] for line in rules.splitlines() if line[:3].strip()}
    assert listed >= {
        *RULES,
        *DENDRITES,
        *COMPETITIONS,
        *(name for registry in PARTS.values() for name in registry),
        "tests_rule",
    }
    assert "tests_anti_hebb" in listed
    assert "term tests_anti_hebb, bound soft_clip." in rules
    assert max(widest(out), widest(rules)) <= 80


def test_a_neuron_is_shown_with_its_equations_options_and_what_was_measured(call: Any, tmp_path: Path) -> None:
    picture = tmp_path / "axon.png"
    words = ["--current", "10", "--duration", "100", "--step", "0.5", "--plot", picture]
    code, out, err = call("neurons", "show", "hodgkin_huxley", *words)
    assert code == 0, err
    assert widest(out.rpartition("written:")[0]) <= 80
    for part in (
        "C du/dt = -gNa m^3 h (u - ENa)",
        "Source: Hodgkin & Huxley 1952",
        "sodium_conductance: number, from 0 to 1,000  (default 120.0)\n      gNa, mS/cm2.",
        "inner_steps: whole number or null, 1 or more",
        "Measured in runs of 100 ms, 200 steps of 0.5 ms:\n  rest      voltage -65, m 0.05296, h 0.596, n 0.3177",
        "at a current of 10 (7 in the run)",
    ):
        assert part in out
    rheobase = float(out.partition("rheobase  ")[2].partition(",")[0])
    assert rheobase == pytest.approx(2.24, abs=0.03)
    with Image.open(picture) as image:
        assert min(image.size) > 500
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_options_reach_the_neuron(call: Any) -> None:
    words = ["--duration", "400", "--step", "0.25"]
    # 1000 / (refractory + 10 ln((20 - reset) / 5))
    for given, expected in (
        (["refractory=0"], 1000 / (10 * np.log(4))),
        (["refractory=10", "reset=-5.0"], 1000 / (10 + 10 * np.log(5))),
    ):
        code, out, err = call("neurons", "show", "lif", *given, "--current", "20", *words)
        assert code == 0, err
        measured = float(out.partition("spikes    ")[2].partition(" a second")[0])
        assert measured == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", ["izhikevich", "morris_lecar", "fitzhugh_nagumo", "linear_2d", "adaptive_lif", "relu"])
def test_every_kind_of_picture(call: Any, tmp_path: Path, name: str) -> None:
    picture = tmp_path / f"{name}.svg"
    words = ["--current", "1", "--duration", "40", "--step", "0.5", "--plot", picture]
    code, out, err = call("neurons", "show", name, *words)
    assert code == 0, err
    assert f"written: {picture}" in out
    assert picture.read_text().startswith("<?xml")


def test_a_unit_that_grows_without_bound_is_told_and_not_drawn(call: Any, tmp_path: Path) -> None:
    """u grows by exp(a h / tau), e^2 a step: from about 1 it passes 1e30 after ln(1e30) / 20 = 3.5 ms."""
    picture = tmp_path / "grown.png"
    code, out, err = call("neurons", "show", "linear_2d", "a=100", "--plot", picture)
    assert code == 2
    assert "output    grows without bound: after 3.6 ms it is beyond 1e+30, at a current of 10" in out
    message = "linear_2d grows beyond 1e+30 within 300 ms, at a current of 10 after 3.6 ms: too much for a picture"
    assert message in err
    assert "Traceback" not in err
    assert not picture.exists()
    # At a current of 0 it stays at 0, but not at the others of the curve.
    code, out, err = call("neurons", "show", "linear_2d", "a=100", "--current", "0", "--plot", picture)
    assert code == 2
    assert "output    0 at a current of 0, at the end" in out
    assert "linear_2d grows beyond 1e+30 within 300 ms, at other currents than 0: too much for a picture" in err
    code, _, err = call("neurons", "show", "linear_2d", "a=100", "--duration", "3", "--plot", picture)
    assert code == 0, err
    assert picture.exists()


def test_a_plugged_in_neuron_is_shown_like_any_other(call: Any, plugin: Path) -> None:
    code, out, err = call("neurons", "show", "tests_softplus", "gain=1", "--current", "2", "--plugin", plugin)
    assert code == 0, err
    assert "gain: number, from 0.1 to 50  (default 4.0)\n      How sharp its bend is." in out
    assert "output    2.127 at a current of 2" in out  # ln(1 + e^2)


def test_a_view_measures_what_the_model_does() -> None:
    view = view_neuron("quadratic", 10.0, duration=400, step_size=0.2)
    assert view.rest == {"voltage": pytest.approx(0, abs=1e-6)}
    assert view.rheobase == pytest.approx(4.5, rel=0.02)  # near it the first spike takes longer than the run
    assert view.response == pytest.approx(33.96, rel=0.01)  # the arctangent form
    assert (view.responses[view.currents < 4.5] == 0).all()
    assert view_neuron("quadratic", 1.0, {"offset": 1.0}, duration=100).rest is None
    # A spike or two at the onset of a current are no rate.
    assert view_neuron("fitzhugh_nagumo", 0.3, duration=200).response == 0


def test_a_rule_and_the_part_of_its_name_are_shown(call: Any, tmp_path: Path) -> None:
    code, out, err = call("rules", "show", "bcm", "--plot", tmp_path / "bcm.png")
    assert code == 0, err
    for part in (
        "rule bcm: term bcm.",
        "    F_t+1 = consolidate(homeostasis(normalise(M bound(rho F_t, A_t))))",
        "  eta: from 0 to 1, starts at 0.1, learned",
        "  bcm_rate: from 0 to 1, starts at 0.1, not learned",
        "bcm_rate: number, from 0 to 1  (default 0.1)",
        "In the rules: bcm.",
    ):
        assert part in out
    assert (tmp_path / "bcm.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", sorted({*RULES, *DENDRITES, *(one for kind in PARTS.values() for one in kind)}))
def test_everything_that_is_listed_is_shown_within_80_columns(call: Any, name: str) -> None:
    code, out, err = call("rules", "show", name)
    assert code == 0, err
    assert widest(out) <= 80
    assert "(no documentation)" not in out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["neurons", "show", "hodgkin_huxly"], ["unknown neuron 'hodgkin_huxly'. Did you mean 'hodgkin_huxley'?"]),
        (["neurons", "show", "lif", "thresold=3"], ["thresold: unknown key. Did you mean 'threshold'?"]),
        (["neurons", "show", "lif", "tau=-3", "rest=oops"], ["2 problems", "tau: must be", "rest: must be a number"]),
        (["neurons", "show", "lif", "tau"], ["takes KEY=VALUE, e.g. tau=20; got 'tau'"]),
        (["neurons", "show", "lif", "--current", "nan"], ["the current must be a finite number, got nan"]),
        (["neurons", "show", "lif", "--step", "0"], ["the step must be a positive number of ms, got 0"]),
        (["neurons", "show", "lif", "--duration", "1e9"], ["10,000,000,000 steps; use 1 to 200,000"]),
        (["neurons", "show", "hodgkin_huxley", "--step", "1", "inner_steps=2"], ["use inner_steps=20 or more"]),
        (["neurons", "show", "lif", "--plot", "lif.gif"], ["a picture ends in .png, .svg or .pdf; got lif.gif"]),
        (["neurons", "show", "lif", "--plot", "small.png"], ["small.png exists already", "Give --plot another name"]),
        (["rules", "show", "ojja"], ["unknown rule or part 'ojja'. Did you mean 'oja'?"]),
        (
            ["rules", "show", "hebb", "--plot", "hebb.png"],
            ["nothing of hebb can be drawn; these have a picture: ", "bcm"],
        ),
        (["neurons", "show", "lif", "--plugin", "nowhere.py"], ["no plugin file 'nowhere.py'"]),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    call: Any, workplace: Path, arguments: list[str], parts: list[str]
) -> None:
    (workplace / "small.png").write_bytes(b"mine")
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert all(part in " ".join(err.split()) for part in parts), err
    assert "Traceback" not in err
    assert (workplace / "small.png").read_bytes() == b"mine"


def test_config_lists_the_options_of_parts(call: Any, plugin: Path) -> None:
    code, out, err = call("config", "network", "--plugin", plugin)
    assert code == 0, err
    assert "network.term {name: bcm, ...}, with options:\nnetwork.term.bcm_rate: number, from 0 to 1" in out
    assert "tests_anti_hebb" in out
