"""The interfaces of a UFE component, one module for each kind."""
