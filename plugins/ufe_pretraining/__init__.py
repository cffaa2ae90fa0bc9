"""Pre-training strategies (P§6): what an encoder learns from headset images that have no labels."""
