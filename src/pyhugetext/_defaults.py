"""The settings where the environment sets none; apart, because most starts need only these."""

AUTO = 5  # Backing::automatic of the core
MIN_TEXT = 256 << 10
PRIVATE_LIMIT = 64 << 20
NO_LIMIT = (1 << 63) - 1

# As the native part takes them: backing, minimum text, private limit, include, exclude.
DEFAULTS = (AUTO, MIN_TEXT, PRIVATE_LIMIT, b"", b"")
