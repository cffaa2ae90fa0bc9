"""Names that the command line offers to choose from. Nothing is imported here: `ufe --help` reads it."""

BUDGETS = ("smoke", "cpu", "gpu", "paper")
FIRST_PARTY = "ufe"  # the distribution and the owner of the components that come with it
KINDS = ("source", "detector", "encoder", "calibrator", "pretraining", "decoder", "metric")
