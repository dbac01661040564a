"""Tests of gateway/listeners: raw bytes in, raw bytes out, over real sockets."""
