"""Tests that start commands, servers and workers, or that need a broker."""
