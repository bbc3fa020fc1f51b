"""The rule-table network's configuration, and the papers' settings by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from plastic_rl.config import ConfigModel, merge
from plastic_rl.errors import ConfigError, unknown_name_message
from plastic_rl.networks.rule_table.hand_written import HAND_WRITTEN
from plastic_rl.networks.rule_table.tables import CONDITIONS, NO_OUTCOME, OutputTable
from plastic_rl.registry import Registry

LAYERS = ("input", "hidden", "output")
Normalise = Literal["none", "incoming_l2", "outgoing_l2"]
Start = Literal["normal", "zeros", "ones"]


class PlasticLayers(ConfigModel):
    """Which layers' weights the tables change; the others keep their start weights for life."""

    input: bool = Field(False, description="Weights from the inputs to the hidden units.")
    hidden: bool = Field(True, description="Weights among the hidden units (where rounds > 0).")
    output: bool = Field(True, description="Weights from the hidden units to the outputs.")


class InnerLayers(ConfigModel):
    """A switch for the input and the hidden table."""

    input: bool = Field(False, description="For the input table.")
    hidden: bool = Field(False, description="For the hidden table.")


class PresynapticFactor(InnerLayers):
    """Whether a change is multiplied by the presynaptic activity."""

    input: bool = Field(
        True, description="For the input table; without it the rule erases features (all inputs' weights move alike)."
    )
    output: bool = Field(False, description="For the output table.")


class Normalisations(ConfigModel):
    """How each layer's weights are scaled at the start and after each update."""

    input: Normalise = Field("incoming_l2", description="none, incoming_l2 (each hidden unit's), outgoing_l2.")
    hidden: Normalise = Field("incoming_l2", description="none, incoming_l2 (each hidden unit's), outgoing_l2.")
    output: Normalise = Field("outgoing_l2", description="none, incoming_l2, outgoing_l2 (each hidden unit's).")


class Steps(ConfigModel):
    """What a table's entry is multiplied by; evolution scales it by the exponential of `log_step`."""

    input: float = Field(0.01, ge=0, description="Step of the input weights.")
    hidden: float = Field(0.01, ge=0, description="Step of the hidden weights.")
    output: float = Field(0.1, ge=0, description="Step of the output weights.")


class StartWeights(ConfigModel):
    """Start weights, drawn anew in every lifetime."""

    input: Start = Field("normal", description="normal, zeros or ones; all zero collapses to one class.")
    hidden: Start = Field("normal", description="normal, zeros or ones.")
    output: Start = Field("zeros", description="normal, zeros or ones.")


class StartScales(ConfigModel):
    """Standard deviation of normal start weights, or the value of constant ones, before normalisation."""

    input: float | None = Field(None, ge=0, description="Default: 1 / sqrt(number of inputs); 1 for ones.")
    hidden: float | None = Field(None, ge=0, description="Default: 1 / sqrt(hidden_size); 1 for ones.")
    output: float | None = Field(None, ge=0, description="Default: 1 / sqrt(hidden_size); 1 for ones.")


class RuleTableConfig(ConfigModel):
    """A randomly wired network of k-capped units whose weights change by tables of local rules."""

    kind: Literal["rule_table"] = Field("rule_table", description="Kind of network.")
    preset: str | None = Field(None, description="A published setting by name; the other keys change it.")
    hidden_size: int = Field(100, ge=1, description="Number of hidden units, H.")
    cap: int | None = Field(10, ge=1, description="The k hidden units that stay active in each round; null: all.")
    rounds: int = Field(0, ge=0, le=6, description="Rounds of recurrence, N; codes have N + 1 bits.")
    recurrence: Literal["joosten", "cristian"] = Field(
        "joosten", description="joosten: a_t = cap(f(W (a_0 + a_t-1))); cristian: a_t = cap(f(W a_t-1 + A x))."
    )
    activation: Literal["linear", "relu", "sigmoid", "tanh"] = Field("relu", description="The hidden units' f.")
    inputs: Literal["features", "all"] = Field(
        "features",
        description="features: the observation's columns before the feedback; all: with the feedback (never a label), "
        "and a constant 1, for environments with few or no features.",
    )
    plastic: PlasticLayers = Field(PlasticLayers(), description="Which layers' weights change.")
    presynaptic: PresynapticFactor = Field(
        PresynapticFactor(), description="Whether a change is multiplied by the presynaptic activity."
    )
    gated: InnerLayers = Field(
        InnerLayers(), description="Whether a table has its own entries for steps rewarded above average and others."
    )
    output_table: OutputTable = Field(
        "label_free",
        description="Columns of the output table: label_free (chosen x rewarded), supervised (correct), "
        "supervised_chosen (correct x chosen).",
    )
    no_outcome: Literal["never", "zero_reward"] = Field(
        "never", description="zero_reward: a reward of exactly 0 means that there was no outcome in that step."
    )
    update_without_outcome: bool = Field(
        False, description="Whether steps without an outcome have table entries of their own; else nothing changes."
    )
    normalise: Normalisations = Field(Normalisations(), description="How weights are scaled after each update.")
    update: Literal["additive", "multiplicative"] = Field(
        "additive", description="w + step * entry, or w * (1 + step * entry)."
    )
    when: Literal["always", "errors"] = Field(
        "always",
        description="errors: only where the correct output was not strictly the largest (label-free: no reward above "
        "average).",
    )
    surprise: bool = Field(False, description="Whether changes are multiplied by |reward - its running average|.")
    step: Steps = Field(Steps(), description="Base step of each layer.")
    learn_steps: bool = Field(True, description="Whether training changes the steps (log_step, which starts at 0).")
    selection: Literal["softmax", "argmax"] = Field(
        "softmax", description="How outputs become probabilities of actions; ties of the argmax are broken at random."
    )
    inverse_temperature: float = Field(
        1.0, gt=0, description="Of the softmax; training scales it by exp(log_inverse_temperature), which starts at 0."
    )
    exploration: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="Probability of a uniformly random action. Training adds the gene `exploration`, which starts at "
        "0, to its logit; 0: never explore, no gene.",
    )
    tables: str = Field(
        "zeros", description="Start of the tables: zeros, normal (N(0, 1)), or the name of a hand-written one."
    )
    table_values: dict[str, float] = Field(
        default_factory=dict, description="Values of a hand-written table that differ from its defaults."
    )
    start_weights: StartWeights = Field(StartWeights(), description="Start weights of each layer.")
    start_scale: StartScales = Field(StartScales(), description="Their scale.")
    reward_average_rate: float = Field(
        0.02, gt=0, le=1, description="Rate of the running average of the reward, which starts at 0."
    )

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        base: Mapping[str, Any] = {}
        name = given.get("preset")
        if name is not None:
            if name not in RULE_TABLE_PRESETS:
                raise ValueError(unknown_name_message(RULE_TABLE_PRESETS.kind, name, RULE_TABLE_PRESETS))
            base = RULE_TABLE_PRESETS[name]
        elif str(given.get("tables")) in HAND_WRITTEN:
            entry = HAND_WRITTEN[str(given.get("tables"))]
            base = {"output_table": entry.output_table, "update": entry.update, "when": entry.when}
        return merge(base, given)

    @field_validator("tables", mode="after")
    @classmethod
    def _known_tables(cls, value: str) -> str:
        if value not in {"zeros", "normal", *HAND_WRITTEN}:
            raise ValueError(unknown_name_message("table", value, ["zeros", "normal", *HAND_WRITTEN]))
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.update_without_outcome and self.no_outcome == "never":
            raise ValueError("update_without_outcome needs no_outcome: zero_reward, which says what such steps are.")
        if self.update_without_outcome and self.output_table != "label_free":
            raise ValueError("update_without_outcome is for label-free tables; a label is always an outcome.")
        if self.tables in HAND_WRITTEN:
            entry = HAND_WRITTEN[self.tables]
            if entry.output_table != self.output_table:
                raise ValueError(
                    f"the table {self.tables} fills output_table: {entry.output_table}, got {self.output_table}."
                )
            try:
                entry.table(2, self.columns, self.table_values)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        elif self.table_values:
            raise ValueError(f"table_values belong to a hand-written table, but tables is {self.tables}.")
        return self

    @property
    def supervised(self) -> bool:
        """Whether the output table reads the label."""
        return self.output_table != "label_free"

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the output table's columns."""
        return CONDITIONS[self.output_table] + (NO_OUTCOME if self.update_without_outcome else ())

    @property
    def columns(self) -> int:
        """Number of the output table's columns, `S`."""
        return len(self.conditions)

    def gates(self, layer: str) -> tuple[str, ...]:
        """Names of the reward conditions for which the table of `layer` (input, hidden) has entries of its own."""
        names: tuple[str, ...] = ("unrewarded", "rewarded") if getattr(self.gated, layer) else ("any",)
        if self.update_without_outcome:
            names += ("no outcome",)
        return names

    def plastic_layers(self) -> list[str]:
        """Names of the layers whose weights change, in order."""
        return [name for name in LAYERS if getattr(self.plastic, name) and (name != "hidden" or self.rounds)]


RULE_TABLE_PRESETS: Registry[Mapping[str, Any]] = Registry("rule-table preset")
"""Published settings of rule-table networks: the keys that differ from the defaults."""

RULE_TABLE_PRESETS.register(
    "joosten_2021",
    {
        "hidden_size": 20,
        "cap": 10,
        "rounds": 3,
        "recurrence": "joosten",
        "plastic": {"input": True, "hidden": True, "output": True},
        "presynaptic": {"input": False, "hidden": False},
        "output_table": "supervised",
        "step": {"input": 0.01, "hidden": 0.01, "output": 0.01},
        "learn_steps": False,
        "selection": "argmax",
        "exploration": 0.0,
        "tables": "normal",
        "start_weights": {"input": "normal", "hidden": "normal", "output": "normal"},
        "start_scale": {"input": 1.0, "hidden": 1.0, "output": 1.0},
    },
)
RULE_TABLE_PRESETS.register(
    "cristian_2021",
    {
        "hidden_size": 1000,
        "cap": 500,
        "rounds": 2,
        "recurrence": "cristian",
        "plastic": {"input": False, "hidden": True, "output": True},
        "output_table": "supervised",
        "step": {"input": 0.01, "hidden": 0.01, "output": 0.01},
        "learn_steps": False,
        "exploration": 0.0,
        "start_weights": {"input": "normal", "hidden": "normal", "output": "zeros"},
    },
)
