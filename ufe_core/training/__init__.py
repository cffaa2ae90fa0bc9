"""Training of encoders through a decoder (P§5)."""
