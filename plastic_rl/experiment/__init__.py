"""Experiments: what one run is, and how it is trained, resumed, evaluated and exported."""
