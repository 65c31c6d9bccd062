"""Masks from a SAM: of prompts, and of everything in an image."""
