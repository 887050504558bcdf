"""``python -m sb3_llm`` is ``sb3-llm``."""

from sb3_llm.cli import main

if __name__ == "__main__":
    main()
