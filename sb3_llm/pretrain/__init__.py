"""How the embedded model is made: stories, a corpus with its manifest, a tokenizer and the training loop."""
