"""Binds every listening socket, forks, supervises, reloads. Plain blocking code: no event loop, no threads, no DNS, so
that fork is safe. Never touches a request and never imports what a worker runs: `cli.py` hands it over.
"""
