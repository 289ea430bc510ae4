#!/usr/bin/env python
"""The same as ``ohem-d2 train``."""

import sys

from ohem_d2.cli import train

if __name__ == "__main__":
    train(sys.argv[1:])
