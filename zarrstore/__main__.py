"""``python -m zarrstore``: the command line."""

from zarrstore.cli import main

if __name__ == "__main__":
    main()
