"""An example plugin: an encoder in one file."""
