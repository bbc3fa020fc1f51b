"""Evolution: a search distribution over a genome of parameters, and the fitness of populations drawn from it.

Data flow of a generation: `Search.ask` -> genes -> `FitnessEvaluator`, in chunks, by an engine -> `Search.tell`.
"""
