"""Calibrators: what a person's anchor expressions add to the features of a frame (P§4)."""
