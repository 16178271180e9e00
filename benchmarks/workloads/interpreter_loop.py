"""The interpreter alone: objects, dictionaries, strings, generators, exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

TITLE = "interpreter loop"
NEEDS: tuple[str, ...] = ()

_SIZE = 7


class Account:
    """A little object with a method, a property and a comparison."""

    __slots__ = ("balance", "owner")

    def __init__(self, owner: str, balance: int) -> None:
        self.owner = owner
        self.balance = balance

    def move(self, amount: int) -> None:
        if amount > self.balance:
            raise ValueError(self.owner)
        self.balance -= amount

    @property
    def rich(self) -> bool:
        return self.balance > 500

    def __lt__(self, other: Account) -> bool:
        return (self.balance, self.owner) < (other.balance, other.owner)


def queens(size: int, row: int = 0, columns: int = 0, up: int = 0, down: int = 0) -> int:
    """How many ways there are to place queens that do not attack each other."""
    if row == size:
        return 1
    found = 0
    free = ~(columns | up | down) & ((1 << size) - 1)
    while free:
        bit = free & -free
        free ^= bit
        found += queens(size, row + 1, columns | bit, (up | bit) << 1, (down | bit) >> 1)
    return found


def words(number: int) -> Iterator[str]:
    for i in range(number):
        yield f"{i * 7919 % 997:x}-{i % 13}"


def iteration() -> int:
    total = queens(_SIZE)
    counts: dict[str, int] = {}
    for word in words(8000):
        head, _, tail = word.partition("-")
        counts[head] = counts.get(head, 0) + int(tail)
    total += sum(value for key, value in counts.items() if key.isdigit())
    accounts = [Account(f"a{i}", i * 37 % 1000) for i in range(3000)]
    for i, account in enumerate(sorted(accounts)):
        try:
            account.move(i % 600)
        except ValueError as error:
            total += len(str(error))
        if account.rich:
            total += account.balance
    text = ",".join(sorted(counts, key=lambda key: (len(key), key)))
    return total + len(text.upper().split(","))


def prepare() -> Callable[[], object]:
    return iteration
