"""Tests that need no service and start no process."""
