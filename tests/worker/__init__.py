"""Tests of gateway/worker."""
