"""What a run's metrics and stages are called where people read them."""

from __future__ import annotations

from ractd.errors import RactdError
from ractd.methods import method_named
from ractd.training.meanings import MEANINGS, Meaning


def meaning(method: str, name: str) -> Meaning:
    """Return what a method's metric or stage is in plain words; one that nobody explained is called by its name.

    `name` is as it is logged. A method of one's own needs no table, and need not be known here.
    """
    try:
        own = method_named(method).meanings
    except RactdError:
        own = {}
    if known := own.get(name) or MEANINGS.get(name):
        return known
    update, slash, metric = name.rpartition("/")
    if slash:
        of_any = meaning(method, metric)
        return Meaning(f"{of_any.title} ({update})", of_any.text, of_any.aside)
    return Meaning(name.replace("_", " ").strip().capitalize() or name)
