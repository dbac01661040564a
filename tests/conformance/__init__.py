"""What the protocol demands of an intermediary, as data: several hundred cases with raw sockets on both sides.

A case (`case.py`) says what a client sends, what the origin answers, and what must come of it, with the clause it rests
on. It is played (`stage.py`) against a running proxy, a real gateway or any other, in front of an origin that records
every byte. Where a clause leaves a choice, every choice passes. A case marked `ours` tests what only this project
promises, and is left out where proxies are compared (`python -m bench conformance`).
"""
