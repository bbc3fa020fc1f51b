"""Classification as a bandit: samples of a data set that the agent has never met, one by one.

A `data` argument names a source (`sources`), generated (`data`) or a finite collection (`pools`, read by `files`); the
environment streams one data set of it for each task (`environment`), also to textbook methods (`learners`).
"""
