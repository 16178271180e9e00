"""What text can lie on: the one list of backings in Python, in the order of the core's numbers."""

# As Backing of the core has them; tests/unit/test_facts.py holds them against it.
NAMES = ("none", "file", "store", "shm", "memfd", "thp", "hugetlb", "auto")
NUMBERS = {name: number for number, name in enumerate(NAMES)}

LADDER = NAMES[1:-1]  # the best first
ALLOWED = ("auto", *LADDER)  # what a user may ask for

SHARED = frozenset(("file", "store", "shm"))  # one copy a machine
PRIVATE = frozenset(("memfd", "thp", "hugetlb"))  # one copy a process

LABELS = {
    "none": "nothing",
    "file": "the original files",
    "store": "the shared store",
    "shm": "the store in shared memory",
    "memfd": "a sealed memory file",
    "thp": "anonymous memory",
    "hugetlb": "the hugetlb pool",
}


def unknown(name: str, value: str) -> str:
    """That the value which was given for this name is no backing, in words."""
    return f"{name} {value!r} is unknown; allowed: {', '.join(ALLOWED)}"
