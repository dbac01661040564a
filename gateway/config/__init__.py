"""What the user wrote, as one frozen value.

This room knows files, TOML, the environment and how to say what is wrong in which line. It never opens a socket, looks
up a name, or knows what any other room does with a value. The way in is `load`.
"""

from gateway.config.load import load, load_and_lint
from gateway.config.model import Config
from gateway.config.problems import ConfigError, ConfigErrors

__all__ = ["Config", "ConfigError", "ConfigErrors", "load", "load_and_lint"]
