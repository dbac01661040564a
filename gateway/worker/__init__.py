"""A worker after the fork: assemble, listen, beat, drain, leave. Knows every room below; knows nothing of the master
but the channel it was born with.
"""
