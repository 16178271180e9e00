"""SQLAlchemy: a unit of work on SQLite in memory, through the object-relational mapper."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

TITLE = "SQLAlchemy ORM"
NEEDS = ("SQLAlchemy",)


class User:
    def __init__(self, name: str) -> None:
        self.name = name
        self.orders: list[Order]


class Order:
    def __init__(self, item: str, price: int) -> None:
        self.item = item
        self.price = price
        self.user: User


def prepare() -> Callable[[], object]:
    sql: Any = import_module("sqlalchemy")
    orm: Any = import_module("sqlalchemy.orm")
    metadata = sql.MetaData()
    users = sql.Table(
        "users",
        metadata,
        sql.Column("id", sql.Integer, primary_key=True),
        sql.Column("name", sql.String, index=True),
    )
    orders = sql.Table(
        "orders",
        metadata,
        sql.Column("id", sql.Integer, primary_key=True),
        sql.Column("user_id", sql.ForeignKey("users.id"), index=True),
        sql.Column("item", sql.String),
        sql.Column("price", sql.Integer),
    )
    mapping = orm.registry()
    mapping.map_imperatively(
        User,
        users,
        properties={"orders": orm.relationship(Order, back_populates="user", order_by=orders.c.id)},
    )
    mapping.map_imperatively(
        Order, orders, properties={"user": orm.relationship(User, back_populates="orders")}
    )
    engine = sql.create_engine("sqlite://")
    metadata.create_all(engine)
    with orm.Session(engine) as session:
        for i in range(100):
            user = User(f"user {i}")
            user.orders = [Order(f"item {j % 17}", i * j % 90) for j in range(5)]
            session.add(user)
        session.commit()
    attributes: Any = (User, Order)
    user_class, order_class = attributes

    def iteration() -> object:
        with orm.Session(engine) as session:
            found = session.scalars(
                sql.select(user_class)
                .where(user_class.id.between(20, 80))
                .options(orm.selectinload(user_class.orders))
                .order_by(user_class.name)
            ).all()
            total = 0
            for user in found:
                total += sum(order.price for order in user.orders)
                user.name = user.name.upper()
            session.add_all([order_class(f"new {i}", i) for i in range(30)])
            session.flush()
            sums = session.execute(
                sql.select(user_class.name, sql.func.sum(order_class.price))
                .join(user_class.orders)
                .group_by(user_class.id)
                .having(sql.func.sum(order_class.price) > 50)
                .limit(60)
            ).all()
            session.rollback()
            return total, len(sums)

    return iteration
