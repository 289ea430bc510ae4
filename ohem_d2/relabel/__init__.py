"""Decisions on suspected label errors, and the corrected annotations that follow from them."""
