"""Tests of gateway/observer."""
