"""Suites with real servers for logins."""
