"""Optimizers from a config, learning-rate schedules, LoRA, and trees addressed by path."""
