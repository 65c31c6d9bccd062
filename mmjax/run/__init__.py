"""A config turned into objects: model, state, tokenizer, data, evaluation."""
