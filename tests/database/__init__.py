"""Tests on SQLite and on PostgreSQL, in the process of the test."""
