"""Numerical operators shared by plugins, each with a plain reference that tests hold it to."""
