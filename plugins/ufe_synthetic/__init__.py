"""The simulated headset: captures rendered from a parametric head, with exact labels."""
