"""``python -m edwin.cli`` is the command ``edwin``."""

from edwin.cli import main

if __name__ == "__main__":
    main()
