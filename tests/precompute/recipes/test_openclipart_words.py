"""Captions and artists out of the metadata that Open Clip Art really has."""

from __future__ import annotations

import pytest

from precompute.recipes.openclipart import clean
from precompute.recipes.openclipart.families import family_of
from precompute.recipes.openclipart.read import Drawing, mend, parse


def drawing(identity: str, title: str = "", creator: str = "", keywords: str = "") -> Drawing:
    return Drawing(identity, title, (creator, "", ""), tuple(keywords.split()), "")


@pytest.mark.parametrize(
    ("raw", "mended"),
    [
        ("L&amp;Atilde;&amp;copy;zard", "Lézard"),
        ("B&amp;Atilde;&amp;uml;r Kessels", "Bèr Kessels"),
        ("FrÃ©dÃ©ric Moser", "Frédéric Moser"),
        ("Croissant (B &amp;amp; W)", "Croissant (B & W)"),
        ("Moisés Rincón Maza", "Moisés Rincón Maza"),
        ("  Maja\n Kocoń ", "Maja Kocoń"),
    ],
)
def test_mend_repairs_escapes_and_mojibake(raw: str, mended: str) -> None:
    assert mend(raw) == mended


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("Jakob [chaosinfaith@hotmail.com]", "Jakob"),
        ("Jean-Victor Balin (balin_j@epita.fr)", "Jean-Victor Balin"),
        ("Andy Burns <andy.burns@protologic.co.uk>", "Andy Burns"),
        ("fudriot@omic.ch", "fudriot"),
        ("mailto:ralf@ark.in-berlin.de", "ralf"),
        ("Architetto Francesco Rollandin", "Francesco Rollandin"),
        ("yves GUILLOU", "Yves Guillou"),
        ("Patricia FIDI", "Patricia Fidi"),
        ("HASH(0x89c79d4)", ""),
        ("Open Clip Art Library", ""),
        ("Anonymous", ""),
        ("Gerald G.", "Gerald G."),
    ],
)
def test_clean_artist(raw: str, name: str) -> None:
    assert clean.clean_artist(raw) == name


def test_artists_fall_back_on_rights_then_on_unknown() -> None:
    named = Drawing("a", "", ("HASH(0x1)", "Nicu Buculei and Nathan Eady", "x"), (), "")
    assert clean.artists_of(named) == ["Nicu Buculei", "Nathan Eady"]
    nobody = Drawing("a", "", ("", "Anonymous", "Open Clip Art Library"), (), "")
    assert clean.artists_of(nobody) == ["unknown artist"]


@pytest.mark.parametrize(
    ("identity", "title", "category", "subject"),
    [
        ("cards/white/white_h_k", "card", "playing card", "king of hearts"),
        ("cards/simple/simple_jk_r", "card", "playing card", "red joker"),
        ("shapes/stars/star_25pt07step", "gramastar", "star", "star with 25 points"),
        ("led/led_rounded_v_orange", "LED Rounded V", "led", "orange vertical rounded led"),
        ("led/led_triangular_1_grey", "LED", "led", "grey triangular led"),
        ("a/arrow08_4", "Clipart by Nicu Buculei - arrow08_4", "arrow", "zigzag arrow up"),
        ("a/arrow-left-seagreen_benj_01", "arrow-left-seagreen", "arrow", "sea green arrow left"),
        ("j/jigsaw_red_07", "Clipart by Nicu Buculei - x", "jigsaw", "red jigsaw piece 7"),
        ("c/clock03", "Clipart by Nicu Buculei - clock12", "clock", "blue clock at three o'clock"),
        ("f/pear", "Clipart by Nicu Buculei - pear", "fruit", "pear"),
        ("f/grapes_simple_bw", "R16 sibmission", "fruit", "grapes"),
        ("b/spider", "Etiquette Icons", "bug", "spider"),
        ("m/cavallo_architetto_franc_01", "Cavallo", "mammal", "horse"),
        ("l/2downarrow", "Lemon SVG theme", "icon", "double down arrow icon"),
        ("l/trashcan_full", "Lemon SVG theme", "icon", "trash can full icon"),
        ("m/aiga_coffee_shop1", "AIGA_Symbol_Signs", "map symbol", "coffee shop"),
        ("fr/canada_ontario", "Canada - Ontario", "flag", "ontario flag"),
        ("m/contour_fox", "Clipart by Nicu Buculei - x", "mammal", "fox silhouette"),
    ],
)  # fmt: skip
def test_subjects(identity: str, title: str, category: str, subject: str) -> None:
    assert clean.subject_of(drawing(identity, title), category)[0] == subject


def test_caption_says_the_family_once_and_the_artist_last() -> None:
    cone = drawing("food/desserts/cone1_bw_ganson", "Ice Cream Cone (1 Scoop) (B and W)")
    subject, details = clean.subject_of(cone, "dessert")
    assert clean.caption(subject, details, "dessert", ["Gerald G."]) == (
        "ice cream cone 1 scoop, black and white, dessert, by Gerald G."
    )
    assert clean.caption("wales flag", [], "flag", ["A"]) == "wales flag, by A"
    assert clean.caption("toys", [], "toy", ["A", "B"]) == "toys, by A and B"


def test_long_captions_drop_details_not_the_subject() -> None:
    text = clean.caption("a " * 8 + "b", ["c d e", "f g"], "toy", ["X"])
    assert text.startswith("a a a") and text.endswith("toy, by X") and "c d e" not in text


def test_keywords_need_a_family_that_shares_them() -> None:
    family = [drawing(f"f/{i}", keywords="feline hash unsorted") for i in range(5)]
    common = clean.common_keywords([*family, drawing("f/x", keywords="rare")], "mammal")
    assert common == {"feline"}
    assert clean.keywords_of(family[0], "tiger", common) == ["feline"]
    assert clean.keywords_of(family[0], "feline", common) == []


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ("orange", "an orange"),
        ("tiger", "a tiger"),
        ("grapes", "grapes"),
        ("glass", "a glass"),
        ("rhinoceros", "a rhinoceros"),
        ("us capitol", "a us capitol"),
        ("bus", "a bus"),
        ("cup of coffee", "a cup of coffee"),
        ("tree with fruits", "a tree with fruits"),
    ],
)
def test_articles(subject: str, said: str) -> None:
    assert clean.article(subject) == said


def test_parse_reads_the_rdf_of_a_file() -> None:
    text = """<svg><metadata><dc:title>Bee</dc:title><dc:subject><rdf:li></rdf:li>
        <rdf:li>Insect</rdf:li></dc:subject><dc:creator><cc:Agent><dc:title>Mo</dc:title></cc:Agent>
        </dc:creator><cc:license rdf:resource="http://web.resource.org/cc/PublicDomain"/></metadata></svg>"""
    found = parse(text, "animals/bugs/bee_01")
    assert (found.title, found.creators[0], found.keywords) == ("Bee", "Mo", ("insect",))
    assert found.licence.endswith("PublicDomain") and family_of(found) == "bug"
    assert parse("<svg/>", "x").creators == ("", "", "")
