from typing import Any

def levels() -> list[str]: ...
def tanh(level: str, values: Any, out: Any) -> None: ...

class Plan:
    def __init__(
        self,
        level: str,
        *,
        oja: bool,
        shifted: bool,
        traced: bool,
        decays: bool,
        soft: bool,
        gate_by_synapse: bool,
        computes_signal: bool,
        simple: bool,
        clip: float,
        individuals: int,
        lifetimes: int,
        steps: int,
        units: int,
        inputs: int,
        signals: int,
        outputs: int = 0,
    ) -> None: ...
    def bind(self, **arrays: Any) -> None: ...
    def step(self, time: int, choice: int = 0) -> bool: ...
    def settle(self, time: int) -> None: ...
    def forward(self) -> None: ...
    def backward(self, spacing: int) -> None: ...
