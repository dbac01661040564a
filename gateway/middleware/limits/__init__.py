"""What limits count by, and where: the names of accounts, and accounts in Redis. The ledger of this machine lies on the
ground, in `gateway/ledger.py`."""
