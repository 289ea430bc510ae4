#!/usr/bin/env python
"""The same as ``ohem-d2 proposals``."""

import sys

from ohem_d2.cli import proposals

if __name__ == "__main__":
    proposals(sys.argv[1:])
