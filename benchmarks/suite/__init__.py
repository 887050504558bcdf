"""The benchmark: language models against small networks, in steps and in seconds."""
