"""Choosing a part, without a browser: what was drawn, what it covers, what rows are called."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from app.pad import counted, line, marks
from app.panels.rows import Line, name_part, picked, place, whole_of
from app.parts import (
    BOXES,
    BRUSH,
    DETECT,
    MOST_STROKES,
    WHOLE,
    WORDS,
    Parts,
    Stroke,
    linked,
    marks_of,
    outlined,
    painted,
)
from app.session import Comparison, Session
from attribution.detection.attention import WordMaps
from attribution.detection.protocol import Detection
from attribution.regions import key
from attribution.types import Query, Region, UserError
from tests.attribution import answers
from tests.tiny import tiny_images


def query(size: tuple[int, int] = (100, 50), *regions: Region) -> Query:
    return Query("a", tiny_images(1)[0].resize(size), regions=regions)


def test_only_the_open_tab_counts_and_the_others_keep_what_they_hold() -> None:
    parts = Parts.of(query()).on(BOXES).add((10, 10, 60, 30)).on(BRUSH)
    parts = parts.paint(Stroke(((90.0, 40.0),), 5.0))
    (mask,) = parts.regions
    assert mask.mask is not None and mask.mask.size == (100, 50)
    assert parts.on(WHOLE).regions == () and parts.on(WHOLE).share == 1.0
    assert parts.on(BOXES).regions == (Region((10, 10, 60, 30)),)
    assert parts.on(BOXES).share == pytest.approx(0.2)
    assert parts.share == pytest.approx(np.pi * 25 / 5000, rel=0.1)


def test_boxes_are_added_chosen_edited_removed_and_cleared() -> None:
    parts = Parts.of(query()).on(BOXES).add((-5, 10, 20.04, 30)).add_first()
    assert parts.boxes == (Region((0, 10, 20, 30)), Region((25, 12.5, 75, 37.5)))
    assert parts.current == 1
    parts = parts.edit((30, 12.5, 75, 37.5))
    assert parts.box == Region((30, 12.5, 75, 37.5)) and len(parts.boxes) == 2
    parts = parts.choose(0).remove()
    assert parts.boxes == (Region((30, 12.5, 75, 37.5)),) and parts.current == 0
    assert parts.choose(7).current == 0
    assert parts.clear().regions == () and "No box yet" in counted(parts.clear())
    for refused in ((50, 0, 40, 9), (100, 0, 120, 9), (None, 0, 1, 1)):
        with pytest.raises(UserError):
            parts.add(refused)
        with pytest.raises(UserError):
            parts.edit(refused)
    full = parts
    for i in range(15):
        full = full.add((i, 0, i + 1, 1))
    with pytest.raises(UserError, match="limit"):
        full.add((0, 0, 9, 9))


def test_too_many_strokes_or_boxes_are_refused_and_nothing_is_lost() -> None:
    parts = Parts.of(query()).on(BRUSH)
    for i in range(MOST_STROKES):
        parts = parts.paint(Stroke(((i / 4, 9.0),), 2.0))
    with pytest.raises(UserError, match="200 strokes are the most"):
        parts.paint(Stroke(((1.0, 1.0),), 2.0))
    parts.undo().paint(Stroke(((1.0, 1.0),), 2.0))
    found = tuple(Detection((i, 0, i + 1, 9), 0.5, "dog") for i in range(20))
    ticked = Parts.of(query()).on(DETECT).detected(found)
    for number in range(1, 16):
        ticked = ticked.tick(number)
    assert ticked.found == found and len(ticked.regions) == 16
    with pytest.raises(UserError, match="16 boxes are the most"):
        ticked.tick(16)
    assert len(ticked.tick(3).tick(16).regions) == 16


def test_every_change_is_drawn_anew() -> None:
    steps = [Parts.of(query()).on(BOXES)]
    steps.append(steps[-1].on(BOXES))  # after a refusal
    steps.append(steps[-1].add((0, 0, 9, 9)))
    assert len({marks(parts) for parts in steps}) == 3


def test_what_the_pad_sends_is_checked() -> None:
    sent = [{"box": [9, 8, 1, 2]}, {"stroke": [[1, 2], [3, 4]], "radius": 2, "erase": True}]
    assert marks_of(json.dumps(sent)) == [
        ((1, 2), (9, 8)),
        Stroke(((1.0, 2.0), (3.0, 4.0)), 2.0, erase=True),
    ]
    for wrong in (
        *("", "5", "[5]", "null", '[{"box": [1, 2]}]', '[{"box": "abcd"}]', '[{"stroke": []}]'),
        *('[{"box": [1, 2, NaN, 4]}]', '[{"stroke": [], "radius": 1, "erase": false}]'),
        '[{"stroke": [[1, 1e999]], "radius": 1, "erase": false}]',
    ):
        with pytest.raises(UserError, match="draw it again"):
            marks_of(wrong)


def test_strokes_cover_their_path_and_the_eraser_takes_away() -> None:
    line = Stroke(((10.0, 25.0), (90.0, 25.0)), 5.0)
    mask = np.asarray(painted((line,), (100, 50)))
    assert mask.shape == (50, 100) and mask[25, 10:90].min() == 255
    assert mask[:19].max() == 0 and mask[32:].max() == 0
    assert mask.sum() / 255 == pytest.approx(80 * 10 + np.pi * 25, rel=0.05)
    gone = painted((line, replace(line, radius=8.0, erase=True)), (100, 50))
    assert gone.getbbox() is None
    nothing = Parts.of(query()).on(BRUSH).paint(replace(line, erase=True))
    assert nothing.regions == () and "Nothing painted yet" in counted(nothing)
    assert nothing.undo().strokes == ()


@pytest.mark.parametrize("at", [(20.0, 20.0), (20.5, 20.5), (20.0, 20.5), (0.0, 64.0)])
def test_the_smallest_tap_of_the_brush_is_a_region(at: tuple[float, float]) -> None:
    """Between four pixels it covers none of them by half."""
    parts = Parts((64, 64)).on(BRUSH).paint(Stroke((at,), 0.64))
    (region,) = parts.regions
    assert region.mask is not None and region.mask.getextrema()[1] >= 128
    assert 0 < parts.share < 0.01 and "less than 1 %" in counted(parts)
    x0, y0, x1, y1 = region.box
    assert x1 - x0 <= 3 and y1 - y0 <= 3 and x0 <= at[0] <= x1 and y0 <= at[1] <= y1


def test_boxes_of_a_link() -> None:
    assert linked("", (64, 64)) == ()
    found = linked("0,1.5,4,8;9,9,99,12", (64, 64))
    assert found == (Region((0, 1.5, 4, 8)), Region((9, 9, 64, 12)))
    for wrong in ("1,2,3", "a,b,c,d", "9,9,9,9", "1,2,3,4;70,0,80,9"):
        with pytest.raises(UserError):
            linked(wrong, (64, 64))


def test_a_picture_with_boxes_comes_with_them() -> None:
    parts = Parts.of(query((100, 50), Region((1, 2, 3, 4))))
    assert parts.tab == BOXES and parts.regions == (Region((1, 2, 3, 4)),)
    assert Parts().picture is False and Parts.of(query()).tab == WHOLE


def test_the_part_is_shown_and_the_rest_faded() -> None:
    picture = Image.new("RGB", (400, 200), "red")
    whole = outlined(Query("a", picture))
    assert whole.size == (320, 160) and np.ptp(np.asarray(whole), axis=(0, 1)).max() == 0
    part = np.asarray(outlined(Query("a", picture, regions=(Region((0, 0, 200, 200)),))))
    assert part[80, 40].tolist() == [255, 0, 0] and part[80, 280].min() > 150


def test_rows_are_named_in_the_order_they_were_asked() -> None:
    box, other = Region((0, 0, 9, 9)), Region((9, 9, 20, 20))
    mask = Region((0, 0, 9, 9), painted((Stroke(((5.0, 5.0),), 4.0),), (100, 50)))
    lines: tuple[Line, ...] = ()
    asked = [query(), query((100, 50), box), query((100, 50), other), query((100, 50), mask)]
    for one in [*asked, query((100, 50), box, other)]:
        lines = (*lines, Line(key(one), name_part(one, lines), one, answers.attribution()))
    assert [row.name for row in lines] == [
        *("whole picture", "box 1", "box 2", "painted part 1", "2 boxes, 1")
    ]


def test_a_part_goes_by_words_of_its_own_only_when_asked_to() -> None:
    parts = Parts.of(query((100, 50), Region((1, 2, 31, 32))))
    assert parts.word(False, "a sign").words == "" == parts.words
    assert counted(parts.word(False, "a sign")).endswith("counts, with the whole prompt.")
    named = parts.word(True, " a  sign ")
    assert named.words == "a sign"
    assert counted(named).endswith("counts, as “a sign”.")
    assert named.on(WHOLE).words == "" and named.clear().words == ""
    found = (Detection((0, 0, 9, 9), 0.9, "stop sign"), Detection((9, 9, 20, 20), 0.5, "dog"))
    ticked = Parts.of(query()).on(DETECT).detected(found).word(True, "")
    assert ticked.words == "stop sign" and ticked.tick(1).words == "stop sign and dog"
    typed = ticked.word(True, "a sign")
    assert typed.words == "a sign" and typed.on(DETECT).words == "a sign"
    # words typed for one part are not those of the next
    assert typed.tick(1).words == "stop sign and dog" and typed.on(BOXES).typed == ""
    assert typed.detected(found).typed == typed.say("x").typed == typed.clear().typed == ""
    assert 'role="status"' in line(typed) and "role" not in line(typed, spoken=False)
    whole = Parts.of(query((100, 50), Region((0, 0, 100, 50)))).word(True, "a sign")
    assert counted(whole) == "The whole picture counts, as “a sign”."


def test_a_word_of_the_prompt_goes_by_its_noun_and_one_of_no_noun_by_the_prompt() -> None:
    maps = WordMaps("a stop sign and a dog", np.eye(6, dtype=np.float32)[:, :, None], (60, 60))
    parts = Parts.of(Query("a stop sign and a dog", tiny_images(1)[0].resize((60, 60))))
    parts = parts.on(WORDS).looked(maps)
    for said, words in (("sign", "stop sign"), ("dog", "dog"), ("and", ""), ("a", "")):
        chosen = parts.say(said)
        assert chosen.regions and chosen.called == said and chosen.words == words, said
        assert f"“{said}”" in counted(chosen)


def test_a_link_s_words_come_with_its_box() -> None:
    box = (Region((1, 2, 3, 4)),)
    asked = Session(link=True, regions=box, called="a sign").asked(query((100, 50))).query
    assert asked is not None and (asked.regions, asked.called) == (box, "a sign")
    parts = Parts.of(asked)
    assert parts.regions == box and parts.words == "a sign"


def test_rows_of_a_part_by_its_words_and_by_the_prompt_share_a_name() -> None:
    part = query((100, 50), Region((0, 0, 9, 9)))
    by_words = replace(part, called="a sign")
    assert place(by_words) == place(part) != "" and key(by_words) != key(part)
    answer = answers.attribution()
    worded = replace(answer, params={**answer.params, "called": "a sign"})
    asked = ((part, answer), (by_words, worded), (by_words, answer))
    rows = [Line(key(one), "box 1", one, found) for one, found in asked]
    # the last is of a method that looks at no words
    assert [row.title for row in rows] == ["box 1", "box 1, as “a sign”", "box 1"]
    named = replace(rows[1], name="a sign")
    assert named.title == "a sign, in its own words"


def test_answers_about_another_part_are_not_compared() -> None:
    session = Session(query=query()).about((Region((0, 0, 9, 9)),))
    assert session.query is not None
    of_part = Comparison(("abu",)).about(key(session.query)).answered(answers.attribution())
    assert of_part.about(key(session.query)) is of_part
    assert of_part.about("").answers == () and of_part.about("").chosen == ("abu",)


def test_a_number_is_not_given_to_two_boxes() -> None:
    """Also when the first rows have made room for later ones."""
    part = Query("a", query().image, regions=(Region((0, 0, 9, 9)),))
    later = tuple(Line("x", f"box {n}", part, answers.attribution()) for n in (8, 9))
    assert name_part(part, later) == "box 10"


def test_a_row_is_compared_with_the_whole_picture_of_its_own_method() -> None:
    of = {name: answers.attribution(name) for name in ("abu", "clip")}
    rows = [Line(part, "", query(), of[name]) for part, name in
            (("", "abu"), ("", "clip"), ("b", "clip"), ("b", "abu"))]  # fmt: skip
    lines = tuple(rows)
    assert whole_of(rows[2], lines) is rows[1] and whole_of(rows[3], lines) is rows[0]
    assert whole_of(rows[3], lines[1:]) is None


def test_a_card_of_a_row_names_row_and_record() -> None:
    assert picked("2|animals/a|b") == (2, "animals/a|b")
