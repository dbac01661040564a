"""What the user wrote, as one frozen value.

This room knows files, TOML, the environment and how to say what is wrong in which line. It never opens a socket, looks
up a name, or knows what any other room does with a value. The way in is `load.py`; what comes out is the `Config` of
`model.py`. They are not imported here: who only asks where a gateway is spoken to (`paths.py`) needs neither.
"""
