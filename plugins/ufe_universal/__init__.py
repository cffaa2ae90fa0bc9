"""The universal facial encoder (P§4)."""
