"The command line: what a user can mend is one sentence, and Ctrl-C loses nothing."
import errno
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from initpools import __version__, cli
from initpools.cli import main
from initpools.core import UserError, holder, hold, lookup, pick_device, write_atomic
from initpools.lab.store import Store
from initpools.samplers import SAMPLERS


@pytest.fixture
def say(capsys):
    "Call the command line; exit code, standard output, and what it says beside it."
    def call(*args):
        try: code = main([str(a) for a in args])
        except SystemExit as e: code = e.code
        out, err = capsys.readouterr()
        if isinstance(code, str): code, err = 1, err + code # as Python prints it at its end
        return code or 0, out, err
    return call


@pytest.fixture
def refuse(say):
    "Call what is to be refused; its one sentence, perhaps after what was found in a folder."
    def call(*args):
        code, out, err = say(*args)
        *found, said = err.strip().splitlines()
        assert (code == 1 and not out and said.startswith("initpools: ") and "Traceback" not in err
                and all("photographs used" in line for line in found)), (code, out, err)
        return said
    return call


@pytest.fixture
def photos(tmp_path):
    "A folder of twelve images."
    (tmp_path/"photos").mkdir()
    for i in range(12): Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(tmp_path/"photos"/f"{i:02}.png")
    return tmp_path/"photos"


def test_the_version(say): assert say("--version") == (0, f"initpools {__version__}\n", "")


def test_usage_errors_are_those_of_typer(say):
    for args in (("choose", "digits"), ("choose", "digits", "5", "--seed", "-1"),
                 ("fill", "figure_5", "--cohort", "-1"), ("nothing",)):
        assert say(*args)[0] == 2, args


# names


def test_at_most_three_near_names():
    many = dict.fromkeys(f"name_{i}" for i in range(23))
    for table in (many, SAMPLERS):
        for wrong in (next(iter(table)) + "x", "qqqq"):
            with pytest.raises(UserError) as e: lookup("sampler", wrong, table)
            assert sum(f"'{name}'" in str(e.value) for name in table) <= 3 and len(str(e.value)) < 160, str(e.value)
    with pytest.raises(UserError, match="`initpools list samplers` prints the 23 valid names"):
        lookup("sampler", "qqqq", many)


@pytest.mark.parametrize("args, command", [
    (("choose", "digits", "5", "-b", "pixels", "-s", "qqqq"), "list frozen"),
    (("figure", "learning_curves", "-p", "qqqq=1"), "list FIGURE"),
    (("choose", "qqqq", "5", "-b", "pixels"), "list datasets"), (("figure", "qqqq"), "list figures")])
def test_the_command_that_prints_the_names(args, command, refuse, say):
    said = refuse(*args)
    assert f"`initpools {command}` prints the" in said and "Did you mean" not in said
    code, out, _ = say(*command.replace("FIGURE", "learning_curves").split())
    assert (code == 0
            and len(out.splitlines()) == int(re.search(r"the (\d+) valid", said)[1])), "as many as were promised"


def test_a_near_name(refuse):
    assert refuse("choose", "digits", "5", "-s",
                  "single_batch_kmean").endswith("Did you mean 'single_batch_kmeans' or 'multi_batch_kmeans'?")
    assert refuse("list", "sampler").endswith("Did you mean 'samplers'?")


# choose


def test_choose_takes_a_path_alone(say, photos, tmp_path):
    ask = ("5", "-b", "pixels", "-s", "random", "--root", tmp_path, "--device", "cpu")
    alone, named = say("choose", photos, *ask), say("choose", f"folder:{photos}", *ask)
    assert alone[0] == 0 and len(alone[1].splitlines()) == 5 and alone[1] == named[1]
    np.savez(tmp_path/"mine.npz", **{f"{k}_{part}": v for part in ("train", "test") for k, v in dict(
        x=np.random.default_rng(0).integers(0, 255, (20, 8, 8), np.uint8), y=np.arange(20) % 2).items()})
    assert len(say("choose", tmp_path/"mine.npz", *ask)[1].splitlines()) == 5


def test_choose_refuses_before_it_computes(refuse, photos, tmp_path):
    root = ("--root", tmp_path/"data")
    assert "There is no folder" in refuse("choose", tmp_path/"photo", "5", *root)
    assert "There is no device 'gpu'" in refuse("choose", photos, "5", "-b", "pixels", "--device", "gpu", *root)
    assert "at least 1" in refuse("choose", photos, "0", "-b", "pixels", *root)
    assert "torchvision has no weights 'qqqq'" in refuse("choose", photos, "5", "-b", "qqqq", *root)
    assert not (tmp_path/"data").exists()


@pytest.mark.parametrize("name", ["gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "", "mps:1"])
def test_devices_that_do_not_exist(name):
    with pytest.raises(UserError, match="There is no device .*use 'auto', 'cpu', 'cuda'"): pick_device(name)


def test_devices_that_exist(monkeypatch):
    import torch
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert ([pick_device(n)
             for n in ("auto", "cpu", "cuda", "cuda:0", "cuda:1")] == ["cuda", "cpu", "cuda", "cuda:0", "cuda:1"])
    with pytest.raises(UserError, match="torch sees 2 GPUs, the last of them 'cuda:1'"): pick_device("cuda:2")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps") == "mps"


# where nobody may write


def test_no_right_to_the_data_root(refuse, photos):
    "Nobody, root included, can make a folder in /sys."
    said = refuse("choose", photos, "5", "-b", "pixels", "-s", "random", "--root", "/sys/data", "--device", "cpu")
    assert "/sys/data/cache/photos" in said and "cannot be written" in said and "--root" in said


def test_no_right_to_the_cache_of_pretext_tasks():
    from initpools.data.images import load
    from initpools.pretext import pretext, task_of
    with pytest.raises(UserError, match="/sys/data/cache/pretext cannot be written.*INITPOOLS_DATA"):
        pretext(task_of("vae", "digits", 1297, True, 1), load("digits"), "cpu", root="/sys/data")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_what_the_system_refuses(number, tmp_path, monkeypatch, refuse):
    "In `write_atomic`, in `hold`, and anywhere else."
    def refused(*args, **more): raise OSError(number, os.strerror(number), str(tmp_path/"file"))
    with monkeypatch.context() as m:
        m.setattr(os, "fsync", refused)
        with pytest.raises(UserError, match=f"{tmp_path}/file cannot be written .{os.strerror(number)}.*make room"):
            write_atomic(tmp_path/"file", b"x")
        assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as m:
        m.setattr(os, "open", refused)
        with pytest.raises(UserError, match="lock cannot be written"), hold(tmp_path/"lock"): pass
    monkeypatch.setattr(cli, "open_store", refused)
    assert f"{tmp_path}/file cannot be used ({os.strerror(number)})" in refuse("store", "ls")


def test_other_errors_of_the_system_are_faults(monkeypatch):
    def broken(*args): raise OSError(errno.EIO, "Input/output error")
    monkeypatch.setattr(cli, "open_store", broken)
    with pytest.raises(OSError): main(["store", "ls"])


def test_a_figure_that_cannot_write_its_records():
    from initpools.lab.execute import execute
    from initpools.lab.faults import small_grid
    with pytest.raises(UserError, match="The store cannot be written to /sys/store"):
        execute(small_grid(1, 1)[:1], Store("/sys/store"), "local", device="cpu", quiet=True)


# fill and store


@pytest.mark.parametrize("minutes", ["-1", "0", "nan"])
def test_a_time_limit_that_is_none(minutes, refuse):
    assert "no time limit" in refuse("fill", "figure_5", f"--minutes={minutes}")


def test_fill_asks_for_a_device_that_exists(refuse):
    assert "There is no device 'gpu'" in refuse("fill", "figure_5", "--device", "gpu")


def test_a_folder_that_is_no_store(refuse, say, tmp_path, photos):
    for command in (("ls",), ("verify",), ("gc",)): assert f"{photos} is no store" in refuse("store", *command, photos)
    assert ("is no store" in refuse("store", "export", photos, tmp_path/"a.csv")
            and "is no store" in refuse("diff", photos, "runs"))
    assert "/etc is no store" in refuse("store", "ls", "/etc")
    (tmp_path/"empty").mkdir()
    assert say("store", "ls", tmp_path/"empty")[1] == "0 runs, 0 rounds\n", "nothing is in it yet"
    assert say("store", "ls", "runs")[0] == 0


def test_an_export_into_a_folder_that_is_not_there(refuse, tmp_path):
    (tmp_path/"store").mkdir()
    assert f"There is no folder {tmp_path}/new to export to" in refuse(
        "store", "export", tmp_path/"store", tmp_path/"new"/"a.csv")
    assert not (tmp_path/"new").exists()


@pytest.mark.parametrize("axis", ["initial", "budget", "validation"])
def test_half_an_image(axis):
    from initpools.lab.grid import grid
    with pytest.raises(UserError, match="1.5 is no number of images: give a whole number, or a share"):
        grid(**{axis: 1.5})
    assert grid(**{axis: .1})


# Ctrl-C


@pytest.mark.parametrize("command, where", [
    (("choose", "digits", "5", "-b", "pixels", "-s", "random", "--device", "cpu"),
     "initpools.choose.features_of"),
    (("fill", "figure_5", "--device", "cpu"), "initpools.report.figure.read_parameters"),
    (("store", "verify", "runs"), "initpools.lab.store.Store.verify"),
    (("store", "ls", "runs"), "initpools.lab.store.Store.frame"),
    (("diff", "runs", "runs"), "initpools.lab.store.diff")])
def test_ctrl_c(command, where, say, monkeypatch):
    def stop(*args, **more): raise KeyboardInterrupt
    monkeypatch.setattr(where, stop)
    assert say(*command) == (130, "", "initpools: stopped; call again to go on\n")


def test_sigterm_in_a_process(tmp_path, photos):
    "As a batch system sends it: a sentence, no round, and the next call goes on."
    ask = ["choose", str(photos), "5", "-b", "pixels", "-o", str(tmp_path/"r"), "--root", str(tmp_path)]
    code = ("import os, signal, initpools.choose as c\nfrom initpools.cli import main\n"
            "def stop(*a, **k): os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
            "c.sheet_of = stop\n"
            f"main({ask})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 143 and done.stderr.endswith("initpools: stopped; call again to go on\n"), done
    assert not (tmp_path/"r").exists() and not list(tmp_path.glob(".r*"))


FILL = "dataset: digits\nsamplers: [random]\nstrategies: [random]\nseeds: 9\ninitial: 10\nbudget: 10\nqueries: 9\n"


def test_ctrl_c_in_a_process(tmp_path):
    "As a terminal sends it, in the middle of the work; the next call goes on."
    (tmp_path/"plan.yml").write_text(FILL)
    store = Store(tmp_path/"store")
    code = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from initpools.cli import "
            "main; main()")
    p = subprocess.Popen([sys.executable, "-c", code, "fill", tmp_path/"plan.yml", "--store", store.folder, "--device",
                          "cpu", "--root", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         start_new_session=True)
    while p.poll() is None and not store.files(): time.sleep(.01)
    assert holder(next(store.folder.glob(".*.claim")))["pid"] == p.pid
    os.killpg(p.pid, signal.SIGINT)
    out, err = p.communicate(timeout=30)
    assert (p.returncode, err) == (130, "initpools: stopped; call again to go on\n") and store.verify() == {}
    assert not list(store.folder.glob(".*")), "no claim, no half of a record"
