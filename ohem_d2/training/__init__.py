"""Training and evaluation from a config, in YAML or in Python."""
