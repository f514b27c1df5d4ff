"""What may come overnight in place of a corpus and what may not, as pairs of texts before and after."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from data.corpus import text
from data.errors import CorpusError
from stages.promotion.guard import check

ROOT = Path(__file__).parents[3]
CORPORA = ROOT.parent / "shared" / "corpora"


def chapters(words: str, seed: int = 0, sentences: int = 500) -> str:
    """Prose of a language, of sorts."""
    draw = random.Random(seed)
    lines = [" ".join(draw.choices(words.split(), k=draw.randint(4, 12))) for _ in range(sentences)]
    return "".join(f"{line.capitalize()}.\n" for line in lines)


ENGLISH = chapters(
    "the time traveller for so it will be convenient to speak of him was expounding a recondite matter us his pale "
    "grey eyes shone and twinkled usually face flushed animated fire burnt brightly soft radiance incandescent lights"
)
RUSSIAN = chapters("путешественник по времени рассказывал нам невероятные вещи его серые глаза искрились и лицо горело")
GREEK = chapters("ο ταξιδιώτης του χρόνου μας εξηγούσε ένα δύσκολο θέμα τα μάτια του έλαμπαν και το πρόσωπό ήταν ζωηρό")
FRENCH = chapters(
    "le voyageur du temps car il convient de l’appeler ainsi nous exposait un problème très obscur à côté"
)
CHINESE = chapters("时间 旅行者 正在 给 我们 讲解 一个 深奥 的 问题 他 灰色 眼睛 闪烁 着 光芒 炉火 烧得 正旺")
JAPANESE = chapters("時間 旅行者 は わたしたち に 難解 な 問題 を 説明 して いた 彼 の 目 が 輝いて ストーブ ランプ 炎")
KOREAN = chapters("시간 여행자는 우리에게 어려운 문제를 설명하고 있었다 그의 회색 눈은 반짝였고 얼굴은 상기되어 있었다")
ERROR = "Service temporarily unavailable. Please try again in a few minutes.\n"
PAGE = "<div class='c'><p>{}</p><ul><li><a href='/x'>more</a></li></ul></div>\n"
LESSON = chapters(
    "a paragraph begins with <p> and ends with </p> whereas the element that is called anchor has an attribute which "
    "names the address where readers are taken once they have chosen the words between both of its ends"
)


def folder(path: Path, body: str | bytes) -> Path:
    path.mkdir(parents=True)
    (path / "corpus.txt").write_bytes(body.encode() if isinstance(body, str) else body)
    return path


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., str]:
    """The guard's objection to a text after another one; empty where it passes."""
    number = iter(range(100))

    def objection(before: str | bytes | None, after: str | bytes, **options: float) -> str:
        place = tmp_path / str(next(number))
        today = folder(place / "today", after)
        accepted = None if before is None else folder(place / "accepted", before)
        try:
            check(today, accepted, **options)
        except CorpusError as refusal:
            what, _, advice = str(refusal).partition("; ")
        else:
            return ""
        assert advice == f"look at {today / 'corpus.txt'}, and at where it comes from"
        assert "\n" not in what
        return what

    return objection


def edited(body: str) -> str:
    """Some words replaced, some lines gone, some quotation marks turned typographic."""
    draw = random.Random(1)
    lines = [line for line in body.replace("the", "this").splitlines() if draw.random() > 0.1]
    return "\n".join(lines).replace(".", "…").replace("'", "’")


def tagged(body: str, share: float) -> str:
    """The text with so much of it within tags."""
    return body + "<p>" * round(len(body) * share / (1 - share) / 3)


PASSED: dict[str, tuple[str, str]] = {
    "the same": (ENGLISH, ENGLISH),
    "edited": (ENGLISH, edited(ENGLISH)),
    "line ends and a byte order mark": (ENGLISH, "\ufeff" + ENGLISH.replace("\n", "\r\n")),
    "a chapter appended": (ENGLISH, ENGLISH + chapters("a new chapter about something else entirely", 2)),
    "a hundred times as much": (ENGLISH, ENGLISH + "".join(chapters(ENGLISH[:400], seed) for seed in range(100))),
    "out of a beginning": (ENGLISH[:300], ENGLISH),
    "a third removed": (ENGLISH, ENGLISH[: len(ENGLISH) * 2 // 3]),
    "exactly half removed": (ENGLISH[:20_000], ENGLISH[:10_000]),
    "other chapters": (ENGLISH, chapters(ENGLISH[:1000].lower(), 3)),
    "the other language of one alphabet": (ENGLISH, FRENCH),
    "in capitals": (ENGLISH, ENGLISH.upper()),
    "accents in one piece and in two": (FRENCH, unicodedata.normalize("NFD", FRENCH)),
    "accents in two pieces and in one": (unicodedata.normalize("NFD", FRENCH), FRENCH),
    "syllables in one piece and in letters": (KOREAN, unicodedata.normalize("NFD", KOREAN)),
    "quotations in another script": (ENGLISH, ENGLISH + RUSSIAN[: len(ENGLISH) // 2]),
    "quotations in another script gone": (ENGLISH + RUSSIAN[: len(ENGLISH) // 2], ENGLISH),
    "two scripts, now more of the second": (ENGLISH[:16_000] + RUSSIAN[:14_000], ENGLISH[:14_000] + RUSSIAN[:16_000]),
    "more kanji than kana": (JAPANESE, JAPANESE + "時間旅行者問題説明" * 400),
    "Chinese, edited": (CHINESE, edited(CHINESE)),
    "numbers only": ("3.14 2.72\n" * 500, "1.41 1.62\n" * 500),
    "a text about HTML": (ENGLISH, LESSON),
    "more and more about HTML": (tagged(ENGLISH, 0.04), tagged(ENGLISH, 0.07)),
    "HTML as ever": (f"<!doctype html>\n{ENGLISH}", f"<!doctype html>\n{edited(ENGLISH)}"),
    "HTML without a head as ever": (PAGE.format(ENGLISH[:90]) * 50, PAGE.format(ENGLISH[9:99]) * 50),
    "HTML that gets a head": (PAGE.format(ENGLISH[:90]) * 50, "<html>" + PAGE.format(ENGLISH[:90]) * 50),
    "no longer HTML": (f"<!doctype html>\n{ENGLISH}", ENGLISH),
    "angle brackets": (ENGLISH, "if a < b and c > d then <unk> <stage direction> <john@example.org> 1<2\n" + ENGLISH),
    "repetitive as ever": (ERROR * 300, ERROR * 500),
}

REFUSED: dict[str, tuple[str, str, str]] = {
    "a page": (ENGLISH, f"\ufeff\n\n <!DOCTYPE HTML PUBLIC '-//W3C'>\n{ENGLISH}", "became an HTML page"),
    "a page without doctype": (ENGLISH, f"<html lang=en>{ENGLISH}", "became an HTML page"),
    "a page of XHTML": (ENGLISH, f"<?xml version='1.0'?>\n<!-- a\nb -->\n<html>{ENGLISH}", "became an HTML page"),
    "a page behind much white space": (ENGLISH, " \n" * 400_000 + "<html>", "became an HTML page"),
    "a page's middle": (
        ENGLISH,
        "Sign in\n" + PAGE.format(ENGLISH[:90]) * 300,
        r"became HTML: [34]\d\.\d% of its characters stand within tags",
    ),
    "tags among a text that had some": (
        tagged(ENGLISH, 0.04),
        tagged(ENGLISH, 0.09),
        r"became HTML: 9\.0% of its characters stand within tags, 4\.0% before",
    ),
    "torn": (
        ENGLISH,
        ENGLISH[: len(ENGLISH) * 2 // 5],
        rf"shrank from {len(ENGLISH):,} to {len(ENGLISH) * 2 // 5:,} characters, by 60\.0% where 50% are let pass",
    ),
    "half and one": (ENGLISH, ENGLISH[: len(ENGLISH) // 2 - 1], "shrank from"),
    "an error message": (ENGLISH, ERROR, "shrank from"),
    "nothing": (ENGLISH, "", r"shrank from .* by 100\.0%"),
    "in Russian": (ENGLISH, RUSSIAN, "in another script: 100% of its letters are CYRILLIC, where 100% were LATIN"),
    "in English": (RUSSIAN, ENGLISH, "letters are LATIN, where 100% were CYRILLIC"),
    "in Greek": (RUSSIAN, GREEK, "letters are GREEK, where 100% were CYRILLIC"),
    "in Chinese": (ENGLISH, CHINESE, "letters are CJK, where 100% were LATIN"),
    "in Japanese": (CHINESE, JAPANESE * 2, "letters are HIRAGANA, where 100% were CJK"),
    "in Korean": (ENGLISH, KOREAN, "letters are HANGUL, where 100% were LATIN"),
    "mojibake": (RUSSIAN, RUSSIAN.encode().decode("latin-1"), "letters are LATIN, where 100% were CYRILLIC"),
    "mostly in Russian": (ENGLISH, ENGLISH + RUSSIAN * 3, r"[67]\d% of its letters are CYRILLIC"),
    "no letters": (ENGLISH, "1234567890 " * 4000, "lost most of its characters: .* made up 0% of the accepted text"),
    "one letter": (ENGLISH, "e" * 40_000, r"lost most of its characters: .* made up 1\d% of the accepted text"),
    "blank": (ENGLISH, " \n" * 40_000, "lost most of its characters: .* made up 0% of the accepted text"),
    "other Chinese characters": (
        CHINESE,
        CHINESE + "".join(map(chr, range(0x5000, 0x5000 + 9000))),
        r"consists of other characters: only \d\d% of it are ones that the accepted text has",
    ),
    "an error message many times": (
        ENGLISH,
        ERROR * 1000,
        r"says the same over and over: it compresses to 0\.\d% of its size, the accepted text to \d\d\.\d%",
    ),
}


@pytest.mark.parametrize(("before", "after"), PASSED.values(), ids=PASSED)
def test_the_same_corpus_a_night_later(compare: Callable[..., str], before: str, after: str) -> None:
    assert compare(before, after) == ""


@pytest.mark.parametrize(("before", "after", "says"), REFUSED.values(), ids=REFUSED)
def test_what_never_reaches_training(compare: Callable[..., str], before: str, after: str, says: str) -> None:
    assert re.search(says, compare(before, after))
    assert compare(before, before) == ""


@pytest.mark.parametrize("name", ["a page", "a page's middle"])
def test_html_is_refused_where_nothing_was_accepted_yet(compare: Callable[..., str], name: str) -> None:
    _, after, says = REFUSED[name]
    assert re.search(says, compare(None, after))


@pytest.mark.parametrize("body", [ENGLISH, CHINESE, "e" * 100, ERROR * 100, LESSON, "1", ""])
def test_any_other_text_will_do_where_nothing_was_accepted_yet(compare: Callable[..., str], body: str) -> None:
    assert compare(None, body) == ""


def test_how_much_may_be_lost_can_be_chosen(compare: Callable[..., str]) -> None:
    torn = ENGLISH[: len(ENGLISH) * 4 // 5]
    assert compare(ENGLISH, torn, largest_loss=0.25) == ""
    assert "by 20.0% where 10% are let pass" in compare(ENGLISH, torn, largest_loss=0.1)
    assert "where 0% are let pass" in compare(ENGLISH, ENGLISH[:-1], largest_loss=0)
    assert compare(ENGLISH, ENGLISH[: len(ENGLISH) // 50], largest_loss=1) == ""


def test_where_a_text_is_cut_into_chunks_does_not_matter(
    compare: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = text.read
    monkeypatch.setattr(text, "read", lambda path: read(path, 7))
    assert "became an HTML page" in compare(ENGLISH, f" \n<!doctype html>\n{ENGLISH}")
    assert "CYRILLIC" in compare(ENGLISH, RUSSIAN)
    assert compare(RUSSIAN, edited(RUSSIAN)) == ""


@pytest.mark.parametrize("name", ["timemachine.txt", "tinyshakespeare.txt"])
def test_the_real_texts(compare: Callable[..., str], name: str) -> None:
    path = CORPORA / name
    if not path.is_file():
        pytest.skip(f"{name} is not beside this checkout")
    body = path.read_text(encoding="utf-8")
    lines = body.splitlines(keepends=True)
    paragraphs = "".join(f"<p>{line.strip()}</p>\n" for line in lines)
    sample = (ROOT / "data" / "corpus" / "sample.txt").read_text(encoding="utf-8")

    assert compare(None, body) == ""
    for after in (body, body * 2, edited(body), body.upper(), "".join(lines[len(lines) // 3 :]), body + sample):
        assert compare(body, after) == ""
    assert compare(sample, body) == ""

    assert "shrank from" in compare(body, "".join(lines[: len(lines) // 3]))
    assert "shrank from" in compare(body, sample)
    assert "became HTML" in compare(body, paragraphs)
    assert "became an HTML page" in compare(None, f"<!DOCTYPE html><title>Wells</title><pre>{body}</pre>")
    assert "CYRILLIC" in compare(body, RUSSIAN * 60)
    assert "over and over" in compare(body, ERROR * (len(body) // len(ERROR)))
