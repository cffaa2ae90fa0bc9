"""The metrics of the paper (P§8)."""
