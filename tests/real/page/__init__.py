"""The suite of the page for people."""
