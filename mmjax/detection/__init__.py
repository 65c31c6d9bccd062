"""Detection with loaded models: boxes of texts, of an image's object, and of phrases."""
