"""Endpoints and how to reach them. Knows balancing, health, pools and HTTP/1.1 towards the origin; never knows routes,
clients or which answer an error becomes.

The way in: `Upstream.lease(...)`. A lease counts in-flight, hands out a pooled connection and, on leaving, says the
outcome once.
"""
