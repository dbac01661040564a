"""The token that every request of a scenario bears, and the secret that it is signed with."""

import jwt

SECRET = "a secret that only the bench has"
# Until the year 2100, so that all requests of all runs are the same.
TOKEN = jwt.encode({"sub": "bench", "exp": 4102444800}, SECRET, "HS256")
