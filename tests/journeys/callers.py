"""Callers of a node: requests without a pause from several threads, and what came of each."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Callers:
    """`answers` are (moment, status, bundle) in the order in which they came.

    `known` are the households that were answered, `unknown` those that were a 404.
    """

    answers: list[tuple[float, int, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    known: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)

    def bundles_since(self, moment: float) -> set[str]:
        return {bundle for at, _, bundle in self.answers if at >= moment}

    @property
    def failures(self) -> list[Any]:
        return [*self.lost, *(answer for answer in self.answers if answer[1] != 200)]


@contextmanager
def calling(
    url: str,
    path: str,
    headers: dict[str, str],
    *,
    threads: int = 2,
    pause_s: float = 0.0,
    entities: int = 200,
) -> Iterator[Callers]:
    """Ask for one household after another for as long as the block lasts."""
    callers, ended = Callers(), threading.Event()

    def call(number: int) -> None:
        with httpx.Client(base_url=url, headers=headers, timeout=10) as client:
            key = number
            while not ended.wait(pause_s):
                key = key % entities + 1
                try:
                    answer = client.post(path, json={"household_id": key})
                except httpx.HTTPError as error:
                    callers.lost.append(repr(error))
                    continue
                if answer.status_code == 404:
                    callers.unknown.add(key)
                else:
                    callers.known.add(key)
                    bundle = answer.json().get("bundle", "")
                    callers.answers.append((time.monotonic(), answer.status_code, bundle))

    running = [threading.Thread(target=call, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield callers
    finally:
        ended.set()
        for thread in running:
            thread.join()
