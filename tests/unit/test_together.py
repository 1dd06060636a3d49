"""One question for however many ask it meanwhile."""

import asyncio

import pytest

from service.together import Together


class Counted:
    def __init__(self) -> None:
        self.asked = 0
        self.answer = asyncio.Event()

    async def __call__(self) -> int:
        self.asked += 1
        mine = self.asked
        await self.answer.wait()
        return mine


async def test_of_many_who_ask_the_same_one_goes_and_all_hear() -> None:
    together, question = Together[str, int](), Counted()
    waiting = [asyncio.ensure_future(together.ask("a", question)) for _ in range(50)]
    await asyncio.sleep(0)
    question.answer.set()
    assert await asyncio.gather(*waiting) == [1] * 50
    assert question.asked == 1


async def test_who_asks_after_the_answer_asks_anew() -> None:
    together, question = Together[str, int](), Counted()
    question.answer.set()
    assert [await together.ask("a", question) for _ in range(3)] == [1, 2, 3]


async def test_other_questions_are_asked_beside() -> None:
    together, question = Together[str, int](), Counted()
    waiting = [asyncio.ensure_future(together.ask(key, question)) for key in "ab"]
    await asyncio.sleep(0)
    question.answer.set()
    assert sorted(await asyncio.gather(*waiting)) == [1, 2]


async def test_who_leaves_takes_the_answer_from_nobody() -> None:
    together, question = Together[str, int](), Counted()
    first, second = (asyncio.ensure_future(together.ask("a", question)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    question.answer.set()
    assert await second == 1


async def test_what_it_raises_reaches_all_and_the_next_asks_again() -> None:
    together = Together[str, int]()
    asked = 0

    async def fails() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        raise ValueError("no")

    waiting = [asyncio.ensure_future(together.ask("a", fails)) for _ in range(3)]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["no"] * 3
    assert asked == 1
    with pytest.raises(ValueError, match="no"):
        await together.ask("a", fails)
    assert asked == 2
