"""What tests share: a gateway to start, an origin behind it, a load in front of it.

Knows the gateway only from outside: its command line, its control socket, its signals and what comes over the wire.
"""
