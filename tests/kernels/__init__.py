"""Boots other kernels under qemu and says what the package gets there: `make kernels`. Standard library
alone; may touch its work folder (build/kernels), Debian's archive and PyPI, and needs no root.
"""
