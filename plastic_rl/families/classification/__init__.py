"""Classification as a bandit: samples of a data set that the agent has never met, one by one.

A `data` argument names a source: generated (`data`), or a finite collection (`sources`, read by `files`); the
environment streams one data set of it for each task (`environment`), also to textbook methods (`learners`).
"""
