"""The process that answers questions about the gateway and never carries traffic. Knows the scoreboard and the admin
listener; restarted by the master like a worker, and nobody's request waits for it.
"""
