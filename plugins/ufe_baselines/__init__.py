"""Floor rows that any encoder should beat."""
