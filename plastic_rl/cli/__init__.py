"""The command line: one verb, one function, which calls the rooms below and prints what they return.

Every error that a user can cause is one message on standard error and exit code 2; Ctrl-C is 130. Heavy packages are
imported inside the verbs, so that `plastic-rl --help` is quick.
"""
