"""How a request proves whose it is: tokens, keys, passwords, and what is remembered of them. Knows no requests as a
whole; the kinds that ask for proof do."""
