"""Names that the command line offers to choose from. Nothing is imported here: `ufe --help` reads it."""

BUDGETS = ("smoke", "cpu", "gpu", "paper")
KINDS = ("source", "detector", "encoder", "calibrator", "pretraining", "decoder", "metric")
