"""Popular wheels with much text, each imported and used with and without the package: `make zoo`. Standard
library alone; may touch its work folder (build/zoo) and PyPI.
"""
