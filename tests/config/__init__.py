"""Tests of gateway/config, file by file."""
