"""Tests of gateway/proxy."""
