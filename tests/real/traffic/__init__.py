"""Suites of HTTP in all its versions, between real tools. Called traffic, as `http` is Python's own."""
