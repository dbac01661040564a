"""From a request to its route, and from a route to an endpoint and back. Knows HTTP semantics and what an error means
to a client; never knows sockets, processes or how bytes were parsed.

`router.py` finds the route, `forward.py` carries the exchange, `answers.py` turns what went wrong into a response.
"""
