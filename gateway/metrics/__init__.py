"""What is counted. Knows cells and labels; never knows sockets, requests or processes.

`plan.py` gives every series its cells, `recorder.py` writes them on the hot path, `text.py` adds the seats up and
prints them for Prometheus. Label values come from the configuration and from discovery; those of endpoints that are
gone are forgotten in time.
"""
