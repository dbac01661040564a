"""The bench: one origin, one load generator, and the gateway beside its peers, turn about.

It knows how to start proxies and what they cost from outside (CPU time, memory, answers). It never
imports the gateway: the gateway is one more program with a command line, measured like the others.
Its one entry point is the command ``python -m bench``.
"""
