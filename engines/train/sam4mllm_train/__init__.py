"""Trains the tabletop bundle on scenes that `sam4mllm dataset stream` renders."""
