"""``python -m ohem_d2``, the same as ``ohem-d2``."""

from .cli import main

if __name__ == "__main__":
    main()
