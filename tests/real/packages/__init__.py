"""Suites of what stands in deploy/, of the Dockerfile, and of the static binary that both are about."""
