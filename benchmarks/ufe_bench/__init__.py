"""The benchmark harness: runs components on held-out people and keeps what they scored."""
