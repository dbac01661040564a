"""The gateway: an nginx-style, multi-process HTTP gateway."""

__version__ = "0.1.0"
