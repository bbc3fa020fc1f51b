"""How well an agent learns within a lifetime: the protocol, its statistics, tables and plots.

evaluation = evaluate(agent, "plastic_rl/ReversalBandit-v0", splits=["test", "shift"])
print(evaluation.table())
evaluation.save("evaluation.json")
plot_adaptation(evaluation, "adaptation.png")
"""

from __future__ import annotations

from plastic_rl.evaluation.adaptation_plot import plot_adaptation
from plastic_rl.evaluation.classification import AccuracyAfter, accuracy_after
from plastic_rl.evaluation.lifetimes import Lifetimes, run_lifetimes
from plastic_rl.evaluation.plots import plot_learning_curves
from plastic_rl.evaluation.protocol import evaluate, score_lifetimes
from plastic_rl.evaluation.report import AccuracyPoint, Curve, Evaluation, Score, SplitEvaluation
from plastic_rl.evaluation.statistics import crossed_interval, student_t_interval

__all__ = [
    "AccuracyAfter",
    "AccuracyPoint",
    "Curve",
    "Evaluation",
    "Lifetimes",
    "Score",
    "SplitEvaluation",
    "accuracy_after",
    "crossed_interval",
    "evaluate",
    "plot_adaptation",
    "plot_learning_curves",
    "run_lifetimes",
    "score_lifetimes",
    "student_t_interval",
]
