"""Diffusion: noise schedules, samplers and guidance, as pure functions of a model's prediction."""
