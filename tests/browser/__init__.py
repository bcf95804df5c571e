"""Tests of web pages, in Debian's Chromium."""
