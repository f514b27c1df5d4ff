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
from stages.config import PromotionConfig
from stages.promotion import surprise
from stages.promotion.contender import Contender
from stages.promotion.guard import check

ROOT = Path(__file__).parents[3]
CORPORA = ROOT.parent / "shared" / "corpora"


def chapters(words: str, seed: int = 0, sentences: int = 500) -> str:
    """Prose of a language, of sorts."""
    draw, known = random.Random(seed), words.split()
    lines = [" ".join(draw.choices(known, k=draw.randint(4, 12))) for _ in range(sentences)]
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
LOG = "".join(
    f"2026-01-{day:02} {hour:02}:{seed:02}:07 INFO worker-3 GET /api/v1/orders/{day * hour * seed} 200 in {seed} ms\n"
    for day in range(1, 15)
    for hour in range(24)
    for seed in random.Random(day * hour).sample(range(60), 4)
)
LESSON = chapters(
    "a paragraph begins with <p> and ends with </p> whereas the element that is called anchor has an attribute which "
    "names the address where readers are taken once they have chosen the words between both of its ends"
)


Untrained = Callable[..., Contender]


def folder(path: Path, body: str) -> Path:
    path.mkdir(parents=True)
    (path / "corpus.txt").write_bytes(body.encode())
    return path


@pytest.fixture
def compare(tmp_path: Path, untrained: Untrained) -> Callable[..., str]:
    """The guard's objection to a text after another one, which no champion has learnt; empty where it passes."""
    number = iter(range(100))

    def objection(before: str | None, after: str, **options: float) -> str:
        place = tmp_path / str(next(number))
        today = folder(place / "today", after)
        champion = None if before is None else untrained(folder(place / "accepted", before))
        try:
            said = check(today, champion, PromotionConfig.model_validate({"fewest_characters": 10**9, **options}))
            assert said.startswith("the corpus is fit to train on: it ")
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


def each_line(body: str, times: int) -> str:
    return "".join(line * times for line in body.splitlines(keepends=True))


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
    "half of it repeated, as ever": (ENGLISH * 2, ENGLISH * 3),
    "a refrain behind each verse": (ENGLISH, re.sub(r"(.*\n){8}", rf"\g<0>{ERROR}", ENGLISH)),
    "a log": (LOG[:8_000], LOG),
    "a chapter in two places": (ENGLISH, ENGLISH + ENGLISH[: len(ENGLISH) // 4]),
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
        "says the same over and over: 100% of it comes again further on, 0% of the accepted text",
    ),
    "each line ten times": (ENGLISH, each_line(ENGLISH, 10), r"[78]\d% of it comes again further on, 0% of"),
    "a tenth ten times": (ENGLISH, ENGLISH[: len(ENGLISH) // 10] * 10, "90% of it comes again further on, 0% of"),
    "itself twice": (ENGLISH, ENGLISH * 2, "50% of it comes again further on, 0% of"),
    "half of it an error message": (ENGLISH, ENGLISH[:18_000] + ERROR * 250, r"[45]\d% of it comes again"),
    "more of an error message than ever": (
        ENGLISH + ERROR * 100,
        ENGLISH + ERROR * 1000,
        r"7\d% of it comes again further on, 2\d% of the accepted text",
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
    monkeypatch.setattr(text.read, "__defaults__", (67,))
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
    for after in (body, edited(body), body.upper(), "".join(lines[len(lines) // 3 :]), body + sample):
        assert compare(body, after) == ""
    assert compare(sample, body) == ""

    assert "shrank from" in compare(body, "".join(lines[: len(lines) // 3]))
    assert "shrank from" in compare(body, sample)
    assert "became HTML" in compare(body, paragraphs)
    assert "became an HTML page" in compare(None, f"<!DOCTYPE html><title>Wells</title><pre>{body}</pre>")
    assert "CYRILLIC" in compare(body, RUSSIAN * 60)
    tenth = "".join(lines[: len(lines) // 10])
    for after in (ERROR * (len(body) // len(ERROR)), body * 2, tenth * 10, each_line(body, 10)):
        assert "over and over" in compare(body, after)


def test_the_champion_reads_what_looks_as_it_should(
    champion: Contender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surprise, "STRETCHES", 8)
    story = (ROOT / "data" / "corpus" / "sample.txt").read_text(encoding="utf-8")
    longer = folder(tmp_path / "longer", story + story[:3_000].replace("the", "thy"))
    figures = (
        r"surprises the champion by (-?\d\.\d{3}) bits per character: what is new in it, (\d+)%, takes \d\.\d{3}, and "
        r"the champion's own test text \d\.\d{3}"
    )
    said = check(longer, champion, PromotionConfig())
    sizes = rf"it has {len(story) + 3_000:,} characters"
    assert re.fullmatch(
        rf"the corpus is fit to train on: {sizes}, the accepted one {len(story):,}, and it {figures}", said
    )

    draw = random.Random(0)
    noisy = folder(tmp_path / "noisy", "".join(draw.choice(story) if draw.random() < 0.1 else one for one in story))
    with pytest.raises(CorpusError) as refused:
        check(noisy, champion, PromotionConfig())
    found = re.fullmatch(rf"the corpus {figures}, where 0\.5 are let pass; look at .*", str(refused.value))
    assert found
    assert float(found[1]) > 0.5
    assert int(found[2]) > 90
    assert "surprises the champion by" in check(noisy, champion, PromotionConfig(largest_surprise=5))
    assert check(champion.corpus, champion, PromotionConfig(largest_surprise=0)) == (
        "the corpus is fit to train on: it is the one that the champion was trained on"
    )
    begun = folder(tmp_path / "begun", story[:30_000])
    assert check(begun, champion, PromotionConfig()).endswith(
        "and it holds nothing that the champion was not trained on"
    )
