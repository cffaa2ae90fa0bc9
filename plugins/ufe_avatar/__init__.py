"""Decoders: from an expression code and gaze to the geometry and appearance of a face."""
