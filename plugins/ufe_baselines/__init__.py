"""The methods that the paper compares with, re-implemented as encoders, and two floors that any encoder should beat."""
