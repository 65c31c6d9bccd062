"""Text out of models: greedy, sampling, beam search, and streaming, over one KV cache."""
