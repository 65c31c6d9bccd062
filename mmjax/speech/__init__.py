"""Transcription of recordings: reading, decoding by windows, timestamps, and subtitle files."""
