"""Every kind of bad data is one clear sentence, and loading stops at exactly what validating calls an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_factory import arrays, make, save_fields

from ractd import validate
from ractd.data import load_dataset, summarize, write_hdf5
from ractd.data.validation import outside
from ractd.errors import RactdError

Fields = dict[str, Any]


def messages(path: Any, level: str, env_id: str | None = None) -> list[str]:
    return [finding.message for finding in validate(path, env_id) if finding.level == level]


def rename(old: str, new: str) -> Callable[[Fields], Fields]:
    return lambda fields: {new if name == old else name: value for name, value in fields.items()}


def drop(name: str) -> Callable[[Fields], Fields]:
    return lambda fields: {key: value for key, value in fields.items() if key != name}


def put(name: str, value: Callable[[np.ndarray], Any]) -> Callable[[Fields], Fields]:
    return lambda fields: fields | {name: value(fields[name])}


def at(name: str, where: Any, value: float) -> Callable[[Fields], Fields]:
    def change(fields: Fields) -> Fields:
        array = fields[name].copy()
        array[where] = value
        return fields | {name: array}

    return change


ERRORS = [
    (
        drop("terminals"),
        r"field 'terminals' is missing, found 'actions', 'observations'.*; add it \(bool of shape \(N,\)\)",
    ),
    (rename("observations", "obs"), "'observations' is missing, found .*; rename 'obs' to 'observations'"),
    (rename("actions", "acts"), "rename 'acts' to 'actions'"),
    (rename("rewards", "reward"), "rename 'reward' to 'rewards'"),
    (rename("rewards", "Rewards"), "rename 'Rewards' to 'rewards'"),
    (rename("observations", "observatoins"), "rename 'observatoins' to 'observations'"),
    (put("actions", lambda a: a[:-1]), r"different lengths \(observations 15, actions 14, rewards 15"),
    (put("observations", lambda o: o[:, 0]), r"'observations' has shape \(15,\), expected .*reshape it to \(N, 1\)"),
    (put("observations", lambda o: o[:, :, None]), r"'observations' has shape \(15, 3, 1\).*flatten each row"),
    (put("rewards", lambda r: np.stack([r, r], 1)), r"'rewards' has shape \(15, 2\), expected \(N,\)"),
    *(
        (
            put("actions", partial(np.asarray, dtype=dtype)),
            f"'actions' has dtype {dtype}, expected float32 .*; save them as float32 if they are continuous; choices",
        )
        for dtype in ("int64", "int8", "uint16", "bool")
    ),
    (put("rewards", lambda r: [str(x) for x in r]), "'rewards' has dtype object, expected float32"),
    (
        put("terminals", lambda t: t + np.nan),
        "'terminals' holds 15 numbers not finite in float32; the first, row 0 is NaN",
    ),
    (
        at("observations", (7, 2), np.nan),
        "'observations' holds 1 number not finite in float32; row 7, dimension 2 is NaN",
    ),
    (at("actions", ([4, 3], 1), np.inf), "'actions' holds 2 numbers .*; the first, row 3, dimension 1 is infinite"),
    (at("rewards", 14, -np.inf), "'rewards' holds 1 number .*; row 14 is infinite"),
    (put("rewards", lambda r: r.astype(np.float64) + 1e300), "'rewards' holds 15 .*row 0 is too large for float32"),
    (lambda f: {name: value[:0] for name, value in f.items()}, "empty: no transitions"),
]


@pytest.mark.parametrize(("change", "message"), ERRORS)
def test_errors_are_found_and_stop_loading(tmp_path: Path, change: Callable[..., Any], message: str) -> None:
    path = save_fields(tmp_path / "bad.hdf5", change(arrays()))
    with pytest.raises(RactdError, match=message) as raised:
        load_dataset(path)
    found = messages(path, "error")
    assert len(found) == 1
    assert str(raised.value) == found[0]
    assert found[0].startswith(f"{path}: ")
    assert "\n" not in found[0]


def test_every_error_is_collected_and_loading_counts_them(tmp_path: Path) -> None:
    fields = arrays()
    fields["observations"][3, 1] = np.nan
    fields["actions"][2, 0] = np.inf
    fields["rewards"] = fields["rewards"][:-2]
    del fields["terminals"]
    path = save_fields(tmp_path / "bad.hdf5", fields)
    found = messages(path, "error")
    assert len(found) == 4
    for part in ("'terminals' is missing", "different lengths", "row 3, dimension 1", "row 2, dimension 0"):
        assert any(part in message for message in found)
    with pytest.raises(RactdError, match=r"\(3 more problems: `ractd data validate` lists all\)"):
        load_dataset(path)


def test_nan_in_a_late_block_names_the_row(tmp_path: Path) -> None:
    fields = arrays([200_000], obs=1, act=1)
    fields["rewards"][150_001] = np.nan
    assert "row 150001 is NaN" in messages(save_fields(tmp_path / "bad.hdf5", fields), "error")[0]


def test_files_that_cannot_be_opened_are_one_error(tmp_path: Path) -> None:
    (tmp_path / "page.hdf5").write_text("not data")
    write_hdf5(tmp_path / "whole.hdf5", make([5000]))
    (tmp_path / "cut.hdf5").write_bytes((tmp_path / "whole.hdf5").read_bytes()[:4000])
    for name in ("page.hdf5", "cut.hdf5", "absent.hdf5", "absent.npz"):
        found = validate(tmp_path / name)
        assert [finding.level for finding in found] == ["error"]
        assert name in found[0].message
    assert "not known" in messages("no such thing", "error")[0]


WARNINGS = [
    (drop("timeouts"), "no field 'timeouts', so only terminals end an episode"),
    (at("actions", ([8, 2], 0), 1.5), r"2 rows, the first 2, have actions outside \[-1, 1\]"),
    (at("terminals", slice(-1, None), 0.0), r"the last episode \(rows 8 to 14\) has no end"),
    (at("observations", (slice(None), 1), 3.0), "observations never change in dimension 1,"),
    (at("actions", (slice(None), slice(None)), 0.5), "actions never change in dimensions 0, 1,"),
    (at("rewards", slice(None), 1.0), "every reward is 1,"),
]


@pytest.mark.parametrize(("change", "message"), WARNINGS)
def test_warnings_do_not_stop_loading(tmp_path: Path, change: Callable[..., Any], message: str) -> None:
    import re

    path = save_fields(tmp_path / "odd.hdf5", change(arrays()))
    load_dataset(path)
    assert messages(path, "error") == []
    assert any(re.search(message, found) for found in messages(path, "warning")), messages(path, "warning")


def test_episodes_without_an_end_and_a_single_episode(tmp_path: Path) -> None:
    endless = arrays([10])
    endless["terminals"][:] = endless["timeouts"][:] = False
    found = messages(save_fields(tmp_path / "endless.hdf5", endless), "error")
    assert len(found) == 1
    assert "no row has a terminal or a timeout, so all 10 rows are one episode without an end" in found[0]
    assert "--accept one-episode" in found[0]
    found = messages(save_fields(tmp_path / "single.hdf5", arrays([10], terminal=[False])), "warning")
    assert len(found) == 1
    assert "one episode only" in found[0]


def test_an_unmarked_end_shows_in_the_next_observations(tmp_path: Path) -> None:
    fields = arrays([5, 4, 6], terminal=[False, False, False])
    following = np.roll(fields["observations"], -1, axis=0)
    following[[4, 8, 14]] += 9
    path = save_fields(tmp_path / "x.hdf5", fields | {"next_observations": following})
    assert messages(path, "warning") == []
    fields["timeouts"][8] = False
    path = save_fields(tmp_path / "y.hdf5", fields | {"next_observations": following})
    assert "row 8 has no end, yet the next row's observation isn't" in messages(path, "warning")[0]


def test_sound_data_have_no_findings(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "good.hdf5", make(terminal=[False] * 3))
    assert validate(tmp_path / "good.hdf5") == []
    assert validate(make(terminal=[False] * 3)) == []
    bad = make()
    bad.rewards[3] = np.nan
    assert "dataset 'toy': field 'rewards' holds 1 number not finite" in messages(bad, "error")[0]


def test_an_environment_whose_spaces_do_not_fit() -> None:
    pytest.importorskip("gymnasium")
    found = messages(make(), "error", "Hopper-v5")
    assert len(found) == 2
    assert "observations have 3 dimensions, environment 'Hopper-v5' has 11" in found[0]
    assert "actions have 2 dimensions, environment 'Hopper-v5' has 3" in found[1]
    fitting = make(obs=11, act=3, env_id="Hopper-v5", terminal=[False] * 3)
    assert validate(fitting) == []
    fitting.actions[4, 1] = 1.01
    assert "row 4 has actions outside the bounds of 'Hopper-v5'" in messages(fitting, "warning")[0]


def test_an_environment_that_does_not_exist_is_an_error_where_it_was_asked_for() -> None:
    data = make(terminal=[False] * 3)
    assert (
        "environment 'Nowhere-v9' can't be used: no environment is called" in messages(data, "error", "Nowhere-v9")[0]
    )
    named = make(terminal=[False] * 3, env_id="Nowhere-v9")
    assert "'Nowhere-v9' can't be used, so nothing is scored in it: no env" in messages(named, "warning")[0]
    assert messages(named, "error") == []


def test_summary_facts_are_right_and_fit_json() -> None:
    data = make([5, 3, 7], obs=11, act=3, env_id="Hopper-v5")
    data.observations[:, 4] = 2
    facts = json.loads(json.dumps(summarize(data)))
    returns = data.episode_returns()
    assert (facts["transitions"], facts["episodes"], facts["observation_dim"], facts["action_dim"]) == (15, 3, 11, 3)
    assert facts["return"]["mean"] == pytest.approx(returns.mean())
    assert (facts["return"]["min"], facts["return"]["max"]) == pytest.approx((returns.min(), returns.max()))
    assert facts["score"]["mean"] == pytest.approx(100 * (returns.mean() + 20.272305) / (3234.3 + 20.272305))
    assert facts["length"]["median"] == 5
    assert facts["ends"] == {"terminal": 2, "timeout": 1, "cut_off": 0}
    assert facts["constant_observations"] == [4]
    assert facts["constant_actions"] == []
    assert facts["fingerprint"] == data.fingerprint
    # Each dimension's lowest and highest action is at the edge of its range by definition.
    assert facts["saturated_share"] == pytest.approx(6 / 45)
    assert summarize(make())["score"] is None


def test_a_files_name_gives_it_no_score() -> None:
    assert summarize(make(name="hopper-logs"))["score"] is None
    assert summarize(make(name="hopper-medium-v2"))["score"] is not None


def test_actions_outside_half_open_bounds_are_found() -> None:
    data = make()
    data.actions[4, 1] = -1.5
    low, high = np.full(2, -1, np.float32), np.array([1, np.inf], np.float32)
    assert np.flatnonzero(outside(data, low, high)).tolist() == [4]
