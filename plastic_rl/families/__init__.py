"""The built-in task families: one file (or folder) for each, with its tasks, environment and reference agents.

`plastic_rl/__init__.py` names them by id; they are imported when they are used.
"""
