"""Studies: a folder of questions, each with two sides and several seeds, run as a whole: `plastic-rl study`.

Data flows from `study.yaml` (`questions`) through runs and their measurements (`running`) into tests, a table, a JSON
document and a picture (`findings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plastic_rl.checkpoint import write_atomically
from plastic_rl.errors import ConfigError, TrainingInterrupted, UnknownNameError
from plastic_rl.evaluation.plots import plot_differences
from plastic_rl.experiment.folder import CONFIG, RunFolder
from plastic_rl.experiment.pipeline import Say
from plastic_rl.experiment.studies.findings import Finding, find, labelled, study_json, study_table
from plastic_rl.experiment.studies.questions import SIDES, Question, Study, StudyConfig, load_study
from plastic_rl.experiment.studies.running import (
    FAILED,
    MEASURED,
    Job,
    Places,
    Runner,
    check_plugins,
    claim_folder,
    study_folder,
    trained,
    tuning_runs,
)

__all__ = ["Finding", "Question", "Study", "StudyConfig", "find", "load_study", "study"]


def study(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    name: str | None = None,
    only: Sequence[str] = (),
    processes: int | None = None,
    dry_run: bool = False,
    plugins: Sequence[str] = (),
    runs_folder: str | Path = "runs",
    say: Say = print,
    note: Say = lambda _: None,
    width: int | None = None,
) -> None:
    """Run a study, or go on with one that was stopped, and write what came of it.

    Args:
        path: Its folder, or the file in it.
        overrides: `key.path=value` each.
        name: Of the study's runs; by default that of its folder.
        only: Questions to run; none: all.
        processes: Trainings at a time; None: one for each processor.
        dry_run: Only list the runs.
        plugins: Those that have been loaded.
        runs_folder: Where runs live.
        say: Is given the table.
        note: Is told what is going on.
        width: Of the terminal; None: that of `study.txt`.

    Raises:
        ConfigError: With every problem of all files, before anything is trained.
        RunError: If the folder holds something else than this study.
        KeyboardInterrupt: If it was asked to stop; the same call goes on.
    """
    asked = load_study(path, overrides, plugins=plugins)
    check_plugins(asked, plugins, str(path))
    for each in only:
        if each not in asked.questions:
            raise UnknownNameError("question", each, asked.questions)
    if processes is not None and processes < 1:
        raise ConfigError(f"processes must be 1 or more, got {processes}.")
    chosen = [question for key, question in asked.questions.items() if not only or key in only]
    folder = study_folder(path, name, runs_folder)
    if dry_run:
        for line in planned(folder, chosen):
            say(line)
        return
    claim_folder(folder, asked)
    try:
        Runner(folder, chosen, processes, plugins, note).run()
    except (TrainingInterrupted, KeyboardInterrupt):
        note("stopped; the same command goes on where it was.")
        raise KeyboardInterrupt from None
    findings = find(folder, asked)
    write_atomically(folder / "study.txt", f"{study_table(asked, findings)}\n".encode())
    write_atomically(folder / "study.json", study_json(folder.name, asked, findings).encode())
    plot_differences(labelled(findings), folder / "study.png", title=asked.config.description or folder.name)
    say(study_table(asked, findings, width=width or 80))
    say(f"in {folder}: study.txt, study.json, study.png")


def planned(folder: Path, questions: Sequence[Question]) -> list[str]:
    """A line for each run: where it is or goes, its length, and how far it is."""
    places = Places(folder)
    lines = []
    for question in questions:
        runs = tuning_runs(question)
        tuned = bool(runs)
        for side in SIDES:
            for seed in question.seeds:
                runs.append((question.experiment(side, 0, seed), f"{question.name}/{side}/seed-{seed}"))
        for experiment, wanted in runs:
            length = f"{experiment.total:,} {experiment.unit}"
            if tuned and "/tune-" not in wanted:
                done = (folder / wanted / MEASURED).exists()
                lines.append(
                    f"{wanted}  {length}, with the settings that are best on valid  {'done' if done else 'to do'}"
                )
                continue
            place = places.of(experiment, wanted)
            lines.append(f"{wanted}  {length}  {f'as {place}' if place != wanted else _state(folder, place)}")
    return lines


def _state(folder: Path, place: str) -> str:
    if not (folder / place / CONFIG).is_file():
        return "to do"
    if (folder / place / FAILED).exists():
        return "failed"
    if trained(Job(folder, place)):
        return "done"
    return "to do" if RunFolder(folder / place).latest() is None else "begun"
