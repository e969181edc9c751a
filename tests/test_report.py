"""Reports: what they say of finished, unfinished, broken and differing runs; the plots; the video; the command."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Answer, Trained, options
from matplotlib.patches import Polygon
from report_factory import EPISODES, MEANS, VARIANTS, change_rows, make_run, metrics, with_score

from ractd.data import load_dataset
from ractd.errors import RactdError
from ractd.methods.meanings import RACTD

pytest.importorskip("matplotlib")
pytest.importorskip("av")

from ractd.report import report_of_run, write_report
from ractd.report.contents import DATA, PNG, read_runs
from ractd.report.figures import SCORES, Plot, latency_plot, progress_plot, returns_plots, training_plots
from ractd.report.tables import comparison_table, protocol, result_table, scores, settings_table
from ractd.runs.rows import Row, read_result
from ractd.training.meanings import MEANINGS


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests look at the page; drawing takes three times as long as the rest."""
    monkeypatch.setattr(Plot, "write", lambda plot, directory: directory / f"{plot.key}.png")
    monkeypatch.setattr(Plot, "svg", lambda plot: f'<svg data-plot="{plot.key}"></svg>')


def named(plot: Plot) -> list[str]:
    """What a plot's legend names."""
    return [text.get_text() for legend in plot.figure.legends for text in legend.get_texts()]


def points(plot: Plot, said: str) -> list[tuple[float, float]]:
    """The points of the line that the page calls so."""
    (name, *_) = (name for name, told in plot.said.items() if told.startswith(said))
    (line,) = (line for axes in plot.axes for line in axes.get_lines() if line.get_gid() == name)
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


def test_table_holds_every_row_of_the_result(run: Path) -> None:
    table = result_table(read_runs([run]))
    assert table.columns == ["policy", "score ± s.e.", "return ± s.e.", "NFE", "ms/action"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == ["behaviour data", *VARIANTS]
    # (1200 + 20.272305) / (3234.3 + 20.272305); standard error of 100 even steps from -100 to 100
    assert rows["RACTD"] == ["37.5 ± 0.2", "1,200 ± 6", "1", "0.42"]
    assert rows["behaviour data"][1] == "205"


@pytest.mark.slow
def test_page_is_one_file_below_a_megabyte(run: Path) -> None:
    written = write_report([run], video=False)
    page = written.page.read_text()
    assert written.page == run / "report.html"
    assert written.missing == []
    assert len(page.encode()) < 1e6
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page), "something is fetched"
    assert page.count("<svg") == len(written.pictures) + 4 * 3 + 2, "how each stage ran is folded"
    identities = re.findall(r' id="([^"]*)"', page)
    assert len(identities) == len(set(identities))
    assert "made for a test &lt;&amp;&gt;" in page
    assert page.count("<tr") > len(VARIANTS)


def test_histograms_count_every_episode(run: Path) -> None:
    (plot,) = returns_plots(read_runs([run]))
    titles = [axes.get_title(loc="left") for axes in plot.axes]
    assert [title.split(":")[0] for title in titles] == [DATA, "RACTD", "plain student", "teacher"]
    for axes in plot.axes:
        (outline,) = axes.patches
        assert isinstance(outline, Polygon)
        x, y = np.unique(outline.get_xy(), axis=0).T
        assert np.sum([y[x == each].max() for each in np.unique(x)[:-1]]) > 99
    outline = plot.axes[1].patches[0]
    assert isinstance(outline, Polygon)
    ractd = outline.get_xy()
    assert ractd[ractd[:, 1] > 0, 0].min() >= MEANS["RACTD"] - 200
    assert f"{EPISODES} episodes" in titles[1]


def curves_of(run: Path) -> dict[str, list[str]]:
    """The metrics that each stage's plots show, those behind a bar those that are folded."""
    shown: dict[str, list[str]] = {}
    for stage, plots in training_plots(read_runs([run])).items():
        names = ["| " * plot.folded + plot.key.removeprefix(f"training-{stage}-") for plot in plots]
        shown[stage] = [*sorted(names, key=lambda name: name.startswith("|"))]
    return shown


def test_every_loss_term_has_a_curve(run: Path) -> None:
    shown = curves_of(run)
    assert shown["student"][:5] == ["loss", "ctm", "dsm", "reward", "bound"]
    assert shown["student"][5:7] == ["| gradient-norm", "| samples-per-second"]
    assert shown["return"][:2] == ["loss", "return-mse"]


def test_curves_have_plain_titles_and_say_what_rising_or_falling_means(run: Path) -> None:
    plots = {plot.key: plot for plot in training_plots(read_runs([run]))["student"]}
    plot = plots["training-student-ctm"]
    assert [axes.get_title(loc="left") for axes in plot.axes] == [plot.title] == ["Consistency with the teacher"]
    assert plot.note.endswith("It should fall.")


def test_a_metric_that_nobody_explained_is_called_by_its_name(run: Path) -> None:
    lines = [{"stage": "own", "step": step, "actor/action_error": 1.0, "actor/loss": 2.0} for step in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "config.json").write_text((run / "config.json").read_text().replace('"method": "ractd"', '"method": "mine"'))
    error, loss = training_plots(read_runs([run]))["own"]
    assert (error.title, error.note) == ("Action error (actor)", "")
    assert loss.title == "Loss (actor)"
    assert "not how good the policy is" in loss.note


def test_every_metric_of_a_training_is_explained(trained: Trained) -> None:
    (run,) = read_runs([trained.directory])
    logged = {name for metrics in run.curves.values() for name in metrics}
    assert {"dsm", "ctm", "watch_promise", "validation_mse"} <= logged
    assert logged - set(RACTD) - set(MEANINGS) - set(SCORES) == set()


def test_total_of_a_single_term_is_drawn_once(run: Path) -> None:
    lines = metrics()
    for line in lines:
        if line["stage"] == "teacher":
            line["loss"] = line["dsm"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert curves_of(run)["teacher"][:2] == ["dsm", "| gradient-norm"]


def test_scores_during_training_are_normalised_and_mark_the_chosen_checkpoint(run: Path) -> None:
    plot = progress_plot(read_runs([run]))
    assert plot is not None
    evaluated = [line for line in plot.axes[0].get_lines() if line.get_linestyle() == "-"]
    assert len(evaluated) == 2, "plain and student"
    for line in evaluated:
        assert np.asarray(line.get_xdata()).tolist() == [500, 1000, 1500, 2000]
        assert np.asarray(line.get_ydata())[1] == pytest.approx(
            100 * (1000 + 20.272305) / (3234.3 + 20.272305), rel=1e-5
        )
    marked = [line for line in plot.axes[0].get_lines() if line.get_markersize() == 12]
    assert [np.asarray(line.get_xdata()).tolist() for line in marked] == [[1000], [1000]]


def test_long_curves_keep_their_spikes_and_the_page_small(run: Path) -> None:
    values = np.sin(np.arange(100_000) / 1e4) + np.random.default_rng(0).normal(0, 0.01, 100_000)
    values[54_321] = 90.0
    lines = [json.dumps({"stage": "teacher", "step": step, "dsm": value}) for step, value in enumerate(values.tolist())]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    ((plot,),) = training_plots(read_runs([run])).values()
    drawn = plot.svg()
    assert len(drawn) < 1e6
    (path,) = re.findall(r'id="training-teacher-dsm-run0-0">.*?d="([^"]*)"', drawn, re.S)
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)]
    assert min(heights) < max(heights) - 50, "the spike"


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    runs = read_runs([make_run(tmp_path / "a" / "run"), make_run(tmp_path / "b" / "run", "hopper-other")])
    assert [run.label for run in runs] == ["a/run", "b/run"]
    assert comparison_table(runs).columns == ["policy", "a/run", "b/run"]
    assert ["RACTD", "37.5 ± 0.2", "37.5 ± 0.2"] in comparison_table(runs).rows
    (plot,) = returns_plots(runs)
    assert [len(axes.patches) for axes in plot.axes] == [2, 2, 2, 2]
    assert not settings_table(runs).strong


def test_different_environments_share_scores_but_no_histogram(tmp_path: Path, no_pictures: None) -> None:
    paths = [make_run(tmp_path / "hopper"), make_run(tmp_path / "walker", "walker2d-mixed", "Walker2d-v5")]
    written = write_report(paths, tmp_path / "both.html", video=False)
    text = written.page.read_text()
    assert "different environments (Hopper-v5, Walker2d-v5)" in text
    assert "not comparable" in text
    assert [plot.key for plot in returns_plots(read_runs(paths))] == ["returns-Hopper-v5", "returns-Walker2d-v5"]
    latency = latency_plot(read_runs(paths))
    assert latency is not None
    assert len(latency.axes) == 1


def test_a_planner_is_timed_by_the_plan_and_says_how_often_it_reached_the_goal(run: Path, no_pictures: None) -> None:
    def planner(row: Row) -> Row:
        assert row.protocol is not None
        protocol = replace(row.protocol, execute=128)
        return replace(row, plans=True, returns=(1.0, 2.0, 0.0, 5.0) * 25, protocol=protocol)

    change_rows(run, planner)
    (run / "plans.png").write_bytes(PNG)
    runs = read_runs([run])
    table = result_table(runs)
    assert table.columns[-3:] == ["reached", "NFE", "ms/plan"]
    assert table.rows[-1][-3:] == ["75%", "157", "77.50"]
    assert "128 actions of each sequence before the next plan; reached: came to the goal" in protocol(runs[0])
    latency = latency_plot(runs)
    assert latency is not None
    assert latency.axes[0].get_xlabel() == "milliseconds per plan, batch 1"
    assert 'href="#plans"' in write_report([run], video=False).page.read_text()


def test_runs_without_a_common_unit_share_no_axis(tmp_path: Path, no_pictures: None) -> None:
    paths = [
        make_run(tmp_path / "hopper"),
        make_run(tmp_path / "pendulum", "pendulum", "InvertedPendulum-v5"),
        make_run(tmp_path / "logs", "logs", None),
    ]
    latency = latency_plot(read_runs(paths))
    assert latency is not None
    units = [axes.get_ylabel() for axes in latency.axes]
    assert units == ["D4RL-normalised score", "return in InvertedPendulum-v5", "return model's estimate, logs"]
    written = write_report(paths, tmp_path / "all.html", video=False)
    assert "only what shares a unit shares a plot" in written.page.read_text()
    assert ["RACTD", "logs", "–", "–", "53.0", "0.50", "1", "0.42"] in result_table(read_runs(paths)).rows  # noqa: RUF001


def remove_result(run: Path) -> None:
    (run / "result.json").unlink()


def cut_result(run: Path) -> None:
    (run / "result.json").write_text((run / "result.json").read_text()[:500])


def damage_row(run: Path) -> None:
    content = json.loads((run / "result.json").read_text())
    content["rows"][6] = "lost"
    content["rows"][1]["returns"][3] = "NaN"
    content["rows"][0]["ms_per_action"] = None
    (run / "result.json").write_text(json.dumps(content))


def cut_metrics(run: Path) -> None:
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text()[:-40])


def damage_metrics(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[7] = '{"stage": "return", "step": "x"}'
    lines[9] = "\x00\x00"
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def stop_early(run: Path) -> None:
    lines = [line for line in metrics() if line["stage"] in ("return", "teacher")]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "result.json").unlink()


def leave_rows_out(run: Path) -> None:
    content = json.loads((run / "result.json").read_text())
    content |= {"complete": False}
    del content["rows"][6]
    (run / "result.json").write_text(json.dumps(content))
    (run / "policy" / "teacher").mkdir(parents=True)


def damage_config(run: Path) -> None:
    (run / "config.json").write_text('{"format": "something else"}')


def leave_data_out(run: Path) -> None:
    content = json.loads((run / "result.json").read_text())
    del content["behavior"]["returns"]
    (run / "result.json").write_text(json.dumps(content))


def damage_data(run: Path) -> None:
    content = json.loads((run / "result.json").read_text())
    content["behavior"]["returns"][3] = "many"
    (run / "result.json").write_text(json.dumps(content))


def break_plans(run: Path) -> None:
    (run / "plans.png").write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (remove_result, "result.json: not there"),
        (cut_result, "result.json: not valid JSON"),
        (damage_row, "result.json: rows[1]: Expected `float`, got `str` - at `$.returns[3]`; this row is not shown."),
        (cut_metrics, "metrics.jsonl: its last line is cut off"),
        (damage_metrics, "metrics.jsonl: 2 damaged lines left out, the first is line 8"),
        (stop_early, "teacher: the run has not ended, its metrics are as far as step 2,000 of this stage"),
        (leave_rows_out, "result.json: policy teacher is not measured yet"),
        (damage_config, "config.json: not a ractd run"),
        (leave_data_out, "result.json: has no returns of the data"),
        (damage_data, "result.json: has no returns of the data"),
        (break_plans, "plans.png: is no PNG"),
    ],
)
def test_what_is_missing_is_named_and_the_rest_shown(
    run: Path, tmp_path: Path, no_pictures: None, harm: Callable[[Path], None], named: str
) -> None:
    harm(run)
    written = write_report([run], tmp_path / "report.html", video=False)
    assert any(what.startswith(named) for what in written.missing), written.missing
    assert not any(str(tmp_path) in what for what in written.missing)
    assert re.sub(r"&#39;", "'", written.page.read_text()).count(named) == 1
    assert 'data-plot="training-teacher-dsm"' in written.page.read_text()


def test_the_data_s_returns_are_shown_where_the_data_is_not(run: Path, no_pictures: None) -> None:
    data = run.parent / "hopper-mixed.hdf5"
    returns = load_dataset(str(data)).episode_returns()
    data.unlink()
    (contents,) = read_runs([run])
    assert contents.data_returns is not None
    np.testing.assert_allclose(contents.data_returns, returns, rtol=1e-5)
    assert write_report([run], video=False).missing == []


def test_plans_are_embedded(run: Path, no_pictures: None) -> None:
    picture = PNG + b"the browser's business"
    (run / "plans.png").write_bytes(picture)
    assert base64.b64encode(picture).decode() in write_report([run], video=False).page.read_text()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("missing",), "missing: no such directory"),
        (("empty",), "empty: is no run"),
        (("run", "run"), "run: is named twice"),
        (("run", "-o", "page.pdf"), "page.pdf: can't be the report"),
        (("run", "-o", "folder.html"), "folder.html: can't be the report"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    run: Path, words: tuple[str, ...], named: str, cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    Path("empty").mkdir()
    Path("folder.html").mkdir()
    before = sorted(run.rglob("*"))
    answer = cli("report", *words, "--no-video")
    assert answer.code == 2
    assert named in answer.err
    assert "Traceback" not in answer.err
    assert sorted(run.rglob("*")) == before


def test_command_writes_page_and_pictures_and_names_them(run: Path, cli: Callable[..., Answer], tmp_path: Path) -> None:
    from matplotlib.image import imread

    leave_data_out(run)
    answer = cli("report", run, "--no-video", "-o", tmp_path / "page.html")
    assert answer.code == 0, answer.err
    assert "not shown: result.json: has no returns of the data" in answer.out
    assert f"wrote {tmp_path / 'page.html'} and 17 pictures in {tmp_path / 'page'}" in answer.out
    pictures = {path.name: path for path in (tmp_path / "page").iterdir()}
    student = ("loss", "ctm", "dsm", "reward", "bound")
    terms = {"return": ("loss", "return-mse"), "teacher": ("loss", "dsm"), "plain": student, "student": student}
    curves = [f"training-{stage}-{term}.png" for stage in terms for term in terms[stage]]
    assert sorted(pictures) == sorted(["score-latency.png", "returns.png", "score-training.png", *curves])
    for name, path in pictures.items():
        assert imread(path)[..., :3].std() > 0.02, f"{name} shows nothing"


def test_without_the_extra_it_says_what_to_install(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ractd.report.build", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(RactdError, match=r'needs jinja2.*: pip install "ractd\[report\]"'):
        write_report([run])
    from rich.console import Console

    assert report_of_run(run, Console(quiet=True)).startswith("no report: the report needs jinja2")


def test_training_ends_with_a_report(
    trained: Trained, tmp_path: Path, cli: Callable[..., Answer], no_pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ractd.report.build.best_and_worst", lambda run, progress: [])
    run = Path(shutil.copytree(trained.directory, tmp_path / "run"))
    words = ["train", trained.dataset, "--out", run, *options()]
    assert "report:" not in cli(*words).out
    words.remove("--no-report")
    answer = cli(*words)
    assert f"report: {run / 'report.html'}" in answer.out, answer.out + answer.err
    written = (run / "report.html").stat().st_mtime_ns
    assert f"report: {run / 'report.html'}" in cli(*words).out
    assert (run / "report.html").stat().st_mtime_ns == written, "it is not made again"


def test_film_repeats_the_episode_it_is_given(tmp_path: Path) -> None:
    import av
    import gymnasium

    from ractd.report.video import film_episodes

    env = gymnasium.make("InvertedPendulum-v5")
    env.reset(seed=7)
    env.action_space.seed(0)
    actions, returned, ended = [], 0.0, False
    while not ended:
        actions.append(env.action_space.sample())
        _, reward, terminated, truncated, _ = env.step(actions[-1])
        returned, ended = returned + float(reward), terminated or truncated
    try:
        film = film_episodes("InvertedPendulum-v5", {7: np.array(actions)})[7]
    except RactdError as error:
        if not re.search("EGL|OSMesa|GLFW|OpenGL|display", str(error), re.IGNORECASE):
            raise
        pytest.skip(f"skipped: {error}")
    assert film.returned == returned
    (tmp_path / "film.mp4").write_bytes(film.content)
    with av.open(str(tmp_path / "film.mp4")) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == len(actions)
    assert frames[0].std() > 5
    assert np.abs(frames[0].astype(float) - frames[-1]).max() > 20, "nothing moves"


def test_best_and_worst_episode_of_the_student_are_filmed(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    from ractd.report import video

    monkeypatch.setattr(video, "EPISODES", 3)
    heard: list[str] = []
    try:
        best, worst = video.best_and_worst(read_runs([trained.directory])[0], heard.append)
    except RactdError as error:
        if not re.search("EGL|OSMesa|GLFW|OpenGL|display", str(error), re.IGNORECASE):
            raise
        pytest.skip(f"skipped: {error}")
    returns = [float(re.findall(r"return ([\d,.]+);", clip.caption)[0].replace(",", "")) for clip in (best, worst)]
    assert returns[0] >= returns[1] > 0
    assert best.title == "Best of 3 episodes"
    assert best.content[4:8] == worst.content[4:8] == b"ftyp"
    assert len(heard) == 2


def test_no_renderer_is_a_sentence(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    monkeypatch.setattr("ractd.report.video.EPISODES", 2)
    run = Path(shutil.copytree(trained.directory, tmp_path / "run"))
    written = write_report([run])
    (what,) = [what for what in written.missing if what.startswith("video")]
    assert what.startswith("video: there is none, for InvertedPendulum-v5 can't be drawn here (MUJOCO_GL=disabled: ")
    assert 'id="video"' not in written.page.read_text()
    assert written.page.read_text().count("#39;t be drawn here") == 1


def test_the_plot_names_every_row_with_its_place(run: Path) -> None:
    change_rows(run, lambda row: with_score(row, 96.3) if row.variant == "RACTD" else row)
    plot = latency_plot(read_runs([run]))
    assert plot is not None
    names = [f"{name} (NFE {nfe})" for name, (_, nfe, *_) in VARIANTS.items()]
    assert set(named(plot)) == {*names, DATA}
    (point,) = points(plot, "RACTD: 96.3")
    assert point == pytest.approx((0.42, 96.3))
    assert points(plot, "teacher")[0][0] == 77.5


def test_the_last_checkpoint_stands_beside_the_best(run: Path, no_pictures: None) -> None:
    result = read_result(run)
    assert result is not None
    best = result.row("RACTD")
    last = with_score(replace(best, policy="student-last", checkpoint="last", selection="last", step=2000), 12.0)
    replace(result, rows=(best, last, *result.rows[1:])).write(run / "result.json")
    runs = read_runs([run])
    table = result_table(runs)
    assert [row[:2] for row in table.rows[1:3]] == [["RACTD", "37.5 ± 0.2"], ["RACTD, last checkpoint", "12.0 ± 0.2"]]
    assert table.strong == {1}
    assert "; best: the best checkpoint by evaluations during training" in protocol(runs[0])
    assert [(name, value) for name, value, _ in scores(runs[0])] == [
        ("RACTD", "37.5 ± 0.2"),
        ("RACTD, last checkpoint", "12.0 ± 0.2"),
        ("teacher", "9.8 ± 0.2"),
        (DATA, "6.9"),
    ]
    (plot,) = returns_plots(runs)
    assert len(plot.axes) == 5, "both are shown"


def test_a_run_of_any_method_is_shown(tmp_path: Path) -> None:
    """One variant, no critic, no name that the report could know."""
    run = make_run(tmp_path / "run")
    result = read_result(run)
    assert result is not None
    row = replace(
        result.rows[0], method="cloning", variant="cloning", policy="cloned", offline={"distance_to_data": 0.1}
    )
    replace(result, rows=(row,)).write(run / "result.json")
    lines = [line | {"stage": "clone"} for line in metrics() if line["stage"] == "teacher"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    written = write_report([run], video=False)
    page = written.page.read_text()
    found = [
        ("cloning", "37.5 ± 0.2", "best checkpoint by playing, 1 network evaluation, 0.42 ms"),
        ("behaviour data", "6.9", ""),
    ]
    assert scores(read_runs([run])[0]) == found
    assert page.index("37.5 ± 0.2") < page.index("<table")
    curves = {"training-clone-loss.png", "training-clone-dsm.png"}
    assert {path.name for path in written.pictures} == {"score-latency.png", *curves, "returns.png"}


def test_a_result_of_the_first_edition_is_refused(run: Path, cli: Callable[..., Answer]) -> None:
    content = json.loads((run / "result.json").read_text())
    old = {"format": "ractd-result", "format_version": 1, "complete": True, "rows": {"RACTD": content["rows"][0]}}
    (run / "result.json").write_text(json.dumps(old))
    answer = cli("report", run, "--no-video")
    assert answer.code == 2
    assert "result.json: is a result of the first edition (format 1), and this ractd reads format 2" in answer.err
    assert not (run / "report.html").exists()
