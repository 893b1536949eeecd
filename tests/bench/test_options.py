"""The command line."""

from pathlib import Path

import pytest

from bench.options import parse


def test_defaults() -> None:
    options = parse([])
    assert options.command == "run"
    assert options.workloads == ["w1", "w2", "w3", "w4"]
    assert options.rounds == 1
    assert options.precision == "fp32"
    assert options.flags == []


def test_what_follows_two_dashes_is_the_servers() -> None:
    options = parse(["overload", "--factor", "5", "--", "--max-queue-tokens", "100"])
    assert (options.command, options.factor) == ("overload", 5)
    assert options.flags == ["--max-queue-tokens", "100"]


def test_memory_is_given_in_minutes_and_warms_up_for_long() -> None:
    options = parse(["memory", "--minutes", "2"])
    assert (options.seconds, options.warmup) == (120, 60)
    assert parse(["memory", "--warmup", "1"]).warmup == 1
    assert parse(["run"]).warmup == 3


def test_a_pair_has_seven_rounds_and_another_folder() -> None:
    options = parse(["pair", "--other", ".", "--precision", "int8"])
    assert (options.rounds, options.precision, options.other) == (7, "int8", Path.cwd())
    assert parse(["pair", "--other", ".", "--rounds", "1"]).rounds == 1


def test_threads_to_try_are_counts() -> None:
    assert parse(["capacity"]).threads == [8, 16, 32, 64]
    assert parse(["capacity", "--threads", "2,4"]).threads == [2, 4]


def test_peers_are_names_and_addresses() -> None:
    peers = ["fastapi_ort", "http://127.0.0.1:8080"]
    assert parse([part for peer in peers for part in ("--peer", peer)]).peer == peers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workloads", "w1,w9"], "'w9'"),
        (["--rounds", "0"], "0 is not above 0"),
        (["--seconds", "x"], "invalid float"),
        (["--peer", "nobody"], "'nobody' is neither a URL nor one of"),
        (["--base", "http://x", "--", "--threads", "2"], "--base names one that runs"),
        (["pair", "--other", ".", "--cores", "2"], "--cores is for run, fairness, overload, memory"),
        (["run", "--shares", "0,0.5"], "--shares is for fairness, and takes no --peer and no --base"),
        (["fairness", "--shares", "0", "--peer", "fastapi_ort"], "--shares is for fairness"),
        (["fairness", "--picture", "dial.svg"], "--picture is for run and for fairness --shares"),
        (["overload", "--peer", "fastapi_ort"], "--peer is for run and fairness"),
        (["memory", "--base", "http://x"], "wants its --pid"),
        (["pair"], "it wants --other"),
        (["pair", "--other", "nowhere"], "there is no folder"),
        (["pair", "--other", ".", "--base", "http://x"], "no --base"),
        (["capacity", "--base", "http://x"], "takes no --base"),
        (["capacity", "--threads", "8,0"], "0 is not above 0"),
        (["--precision", "fp16"], "invalid choice"),
        (["--picture", "nowhere/rates.svg"], "--picture: there is no folder nowhere"),
        (["--out", "nowhere/rates.jsonl"], "--out: there is no folder nowhere"),
        (["sing"], "invalid choice"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert message in capsys.readouterr().err
