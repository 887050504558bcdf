"""Controls of the zero-shot table: what networks without words learn from the very same demonstrations."""
