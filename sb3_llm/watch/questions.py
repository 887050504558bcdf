"""Questions to a policy that trains, answered where it stands still."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Any

from sb3_llm.watch.serving import Busy

WAITING = 16  # questions at most: each of them holds up the training


class Questions:
    """
    Texts that other threads ask about, answered by the thread that trains, where it stands still.

    Nothing else may ask the policy while it trains: amid an update its weights are half old and half new.

    :param patience: how long one waits for its answer, in seconds
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._asked: list[tuple[str, Future[dict[str, Any]]]] = []
        self._lock = Lock()

    def ask(self, text: str) -> dict[str, Any]:
        """
        Called by any thread but the one that trains.

        :param text: observation text
        :return: what is answered
        :raises Busy: if nobody answers
        :raises ValueError: if the text can't be scored
        """
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            self._asked = [each for each in self._asked if not each[1].cancelled()]
            if len(self._asked) >= WAITING:
                raise Busy(f"{WAITING} questions wait for an answer: ask again in a while.")
            self._asked.append((text, answer))
        try:
            return answer.result(self._patience)
        except TimeoutError:
            if not answer.cancel():  # it is being answered, which does not take long
                return answer.result()
            raise Busy(
                f"The model has not stood still for {self._patience:g} seconds: it is amid an update, or its training "
                "was broken off. Ask again in a moment."
            ) from None

    def waiting(self) -> bool:
        """:return: whether there is anything to answer."""
        return bool(self._asked)

    def answer(self, answer: Callable[[str], dict[str, Any]]) -> None:
        """
        Answer all that were asked.

        :param answer: from a text to its answer
        """
        with self._lock:
            all_asked, self._asked = self._asked, []
        for text, asked in all_asked:
            if not asked.set_running_or_notify_cancel():
                continue
            try:
                asked.set_result(answer(text))
            except Exception as error:  # whatever is asked must not end a training
                asked.set_exception(error)
