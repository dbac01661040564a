"""Tests of gateway/upstream, against real origins in the same event loop."""
