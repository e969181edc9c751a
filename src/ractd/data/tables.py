"""Datasets as tables for people."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from ractd.data.dataset import OfflineDataset
from ractd.data.formats import FILES, DatasetInfo
from ractd.data.formats.made import dataset_dir
from ractd.data.inspect import summarize
from ractd.data.registry import list_datasets


def datasets_table(everything: bool = False) -> Table:
    """Return the datasets that have a name, those that are here first.

    Those that can be downloaded have a line for each family, or with `everything` for each of them.
    """
    caption = f"Datasets made here are in {escape(str(dataset_dir()))}; a path to a file ({', '.join(FILES)}) is a dataset too."
    lines: dict[tuple[str, ...], list[DatasetInfo]] = {}
    for info in sorted(list_datasets(), key=lambda info: not info.present):
        alike = (info.name,) if info.present or everything else (info.kind, info.description, info.name.split("-")[0])
        lines.setdefault(alike, []).append(info)
    if any(len(infos) > 1 for infos in lines.values()):
        caption += " 'ractd data list --all' names each."
    table = Table(title="datasets", title_justify="left", caption=caption, caption_justify="left")
    for column in ("name", "kind", "here", "description"):
        table.add_column(column, overflow="fold")
    for infos in lines.values():
        info, more = infos[-1], len(infos) - 1
        name = f"{info.name} and {more} more" if more else info.name
        table.add_row(escape(name), info.kind, "yes" if info.present else "", escape(info.description))
    return table


def summary_table(dataset: OfflineDataset) -> Table:
    """Return the facts of one dataset."""
    facts = summarize(dataset)
    table = Table(title=escape(dataset.name), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")

    def spread(name: str, digits: int) -> str:
        if name in ("return", "reward") and not facts["has_rewards"]:
            return "no rewards given"
        d = facts[name]
        return (
            f"mean {d['mean']:,.{digits}f}, std {d['std']:,.{digits}f}; min {d['min']:,.{digits}f}, "
            f"median {d['median']:,.{digits}f}, max {d['max']:,.{digits}f}"
        )

    ends = facts["ends"]
    rows = {
        "source": facts["source"],
        "recipe": facts["recipe"] or "not given",
        "environment": ", ".join(filter(None, [facts["env_id"], str(dataset.env_settings)])) or "not given (use --env)",
        **({"maze": facts["maze"]} if facts["maze"] else {}),
        "transitions": f"{facts['transitions']:,} in {facts['memory_bytes'] / 2**20:,.1f} MiB",
        "episodes": f"{facts['episodes']:,}: {ends['terminal']:,} terminated, {ends['timeout']:,} timed out, "
        f"{ends['cut_off']:,} cut off",
        "what ends mean": facts["ends_mean"],
        "dimensions": f"{facts['observation_dim']} observations, {facts['action_dim']} actions",
        "return": spread("return", 1),
        "normalised score": spread("score", 1) if facts["score"] else "no reference known",
        "episode length": spread("length", 0),
        "reward": spread("reward", 3),
        "actions": " ".join(
            f"[{a:.3g}, {b:.3g}]" for a, b in zip(facts["action_low"], facts["action_high"], strict=True)
        ),
        "saturated actions": f"{facts['saturated_share']:.1%}",
        "constant": f"observations {facts['constant_observations']}, actions {facts['constant_actions']}",
        "fingerprint": facts["fingerprint"],
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
    return table
