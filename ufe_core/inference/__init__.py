"""Encoders at run time: without what training needed, one frame at a time."""
