"""The page's API through gradio_client, as scripts call it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from app.api import add_endpoints
from app.jobs import Jobs, public
from attribution import defaults
from attribution.engine import Engine
from attribution.methods.method import Method
from attribution.methods.registry import METHODS
from attribution.types import Attribution, Progress, Query, UserError
from tests.app.conftest import HELD_OUT, RECORDS, Site
from tests.attribution.methods.novel import registered
from tests.tiny import RESOLUTION, tiny_images


@pytest.fixture(scope="module")
def client(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    downloads = tmp_path_factory.mktemp("downloads")
    client = Client(site.url, download_files=downloads, verbose=False)
    yield client
    client.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "mine.png"
    tiny_images(1, seed=4)[0].save(path)
    return path


def refused(client: Client, **arguments: Any) -> str:
    """The message a client gets; it never contains a traceback."""
    with pytest.raises(AppError) as error:
        client.predict(**arguments)
    assert "Traceback" not in str(error.value)
    return str(error.value)


def test_methods_say_which_are_available(client: Client) -> None:
    methods = {m["name"]: m for m in client.predict(api_name="/methods")}
    assert set(methods["abu"]) == {"name", "kind", "title", "available", "why"}
    assert methods["abu"]["available"]
    assert not methods["trak"]["available"] and methods["trak"]["why"]


def test_a_method_of_one_file_is_offered_and_answers(
    client: Client, site: Site, tmp_path: Path
) -> None:
    with registered(tmp_path) as name:
        listed = {m["name"]: m for m in client.predict(api_name="/methods")}
        assert listed[name]["available"] and listed[name]["kind"] == "control"
        query = {"prompt": "ak by 0", "seed": 5, "methods": [name], "top_k": 3}
        (method,) = client.predict(**query, api_name="/attribute")["methods"]
    assert method["name"] == name and len(method["results"]) == 3
    assert name not in {m["name"] for m in client.predict(api_name="/methods")}


def test_generate_returns_the_engine_s_picture(client: Client, site: Site) -> None:
    path = client.predict(prompt="ak by 0", seed=5, api_name="/generate")
    *_, query = site.engine.generate("ak by 0", 5)
    assert Image.open(path).tobytes() == query.image.tobytes()


def test_attribute_returns_the_result_with_served_images(client: Client, site: Site) -> None:
    result = client.predict(
        prompt="ak by 0", seed=5, methods=["abu", "clip"], top_k=6, api_name="/attribute"
    )
    assert result["schema"] == 1
    assert result["query"]["seed"] == 5
    assert [m["name"] for m in result["methods"]] == ["abu", "clip"]
    rows = result["methods"][0]["results"]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(Image.open(row["file"]).size[0] > 0 for row in rows)
    (expected,) = [a for a in _answers(site, "ak by 0", 5) if a.method == "abu"]
    assert [row["record"] for row in rows] == list(expected.ids[:6])


def _answers(site: Site, prompt: str, seed: int) -> list[Attribution]:
    (query,) = [q for q in site.engine.generate(prompt, seed) if isinstance(q, Query)]
    items = site.engine.attribute(query, ("abu",), 6)
    return [item for item in items if isinstance(item, Attribution)]


class Failing:
    """A method that finds on its way that it cannot answer, or that has a fault."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def run(self, query: Query, **_: Any) -> Iterator[Progress | Attribution]:
        yield Progress("think", 0, 1)
        raise self.error


@pytest.fixture
def failing() -> Iterator[None]:
    """Two methods: `sorry` gives a reason, `broken` has a fault."""
    errors = {"sorry": UserError("nothing to go by"), "broken": ZeroDivisionError("secret")}
    for name, error in errors.items():
        METHODS[name] = Method(name, "control", name, "", "", (), lambda _, e=error: Failing(e))
    yield
    for name in errors:
        del METHODS[name]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["sorry", "clip"], "Method sorry: nothing to go by."),
        (["clip", "broken"], "Method broken: Something went wrong on our side."),
        (["sorry", "clip", "broken"], "Method sorry, broken: Something went wrong"),
    ],
)
def test_the_methods_that_can_answer_do(
    client: Client, failing: None, names: list[str], words: str
) -> None:
    query = {"prompt": "ak by 0", "seed": 5, "top_k": 3}
    result = client.predict(**query, methods=names, api_name="/attribute")
    (method,) = result["methods"]
    assert method["name"] == "clip" and len(method["results"]) == 3
    assert result["error"].startswith(words) and "secret" not in result["error"]
    alone = client.predict(**query, methods=["clip"], api_name="/attribute")
    assert "error" not in alone
    ids = [[row["record"] for row in r["methods"][0]["results"]] for r in (result, alone)]
    assert ids[0] == ids[1]


def test_an_answer_of_no_method_is_an_error(client: Client, failing: None) -> None:
    call = {"prompt": "ak by 0", "seed": 5, "api_name": "/attribute"}
    assert "othing to go by" in refused(client, **call, methods=["sorry"])
    for name in ("broken", "sorry,broken"):
        line = refused(client, **call, methods=name.split(","))
        assert "our side" in line and "secret" not in line


def test_the_default_number_of_records_is_told(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = {"prompt": "ak by 0", "seed": 5, "methods": ["pixel"], "api_name": "/attribute"}
    for number in ({}, {"top_k": None}):
        (method,) = client.predict(**call, **number)["methods"]
        assert len(method["results"]) == defaults.TOP_K
    assert _told(engine) == defaults.TOP_K
    monkeypatch.setattr(engine, "n_train", 7)  # an index of few
    assert _told(engine) == 7


def _told(engine: Engine) -> Any:
    """The default of `top_k` that clients of a page are shown."""
    with gr.Blocks() as page:
        add_endpoints(engine, Jobs(engine))
    endpoint = page.get_api_info()["named_endpoints"]["/attribute"]
    (top_k,) = (one for one in endpoint["parameters"] if one["parameter_name"] == "top_k")
    return top_k["parameter_default"]


def test_attribute_takes_an_uploaded_image(client: Client, picture: Path) -> None:
    result = client.predict(
        prompt="ak by 0", image=handle_file(picture), top_k=3, api_name="/attribute"
    )
    assert result["query"]["seed"] is None
    assert len(result["methods"][0]["results"]) == 3


def test_attribute_takes_regions(client: Client, picture: Path) -> None:
    call = {"prompt": "ak by 0", "image": handle_file(picture), "methods": ["pixel"], "top_k": 3}
    boxes = [[0, 0, 4, 4], [5, 5, RESOLUTION + 9, 9]]
    result = client.predict(**call, regions=boxes, api_name="/attribute")
    assert result["query"]["regions"] == [[0, 0, 4, 4], [5, 5, RESOLUTION, 9]]
    assert result["methods"][0]["params"]["region"] == "crop"
    whole = client.predict(**call, api_name="/attribute")
    rows = [[row["score"] for row in r["methods"][0]["results"]] for r in (result, whole)]
    assert rows[0] != rows[1]
    named = client.predict(**call, regions=boxes, called=" bo\tby 1", api_name="/attribute")
    assert named["query"]["called"] == "bo by 1" and result["query"]["called"] == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "a", "seed": -1}, "seed has to be"),
        ({"prompt": "a", "seed": 2**32}, "seed has to be"),
        ({"prompt": "a", "seed": 1.5}, "seed has to be"),
        ({"prompt": "a", "top_k": 0}, "op-k has to be"),
        ({"prompt": "a", "top_k": RECORDS - HELD_OUT + 1}, "op-k has to be"),
        ({"prompt": "a", "methods": []}, "o method given"),
        ({"prompt": "a", "methods": ["nonsense"]}, "nknown method"),
        ({"prompt": "a", "methods": ["trak"]}, "trak"),
        ({"prompt": "a", "regions": [[RESOLUTION, 0, RESOLUTION + 1, 4]]}, "outside the picture"),
        ({"prompt": "a", "regions": [[4, 0, 4, 4]]}, "its left has to be below its right"),
        ({"prompt": "a", "regions": [0, 0, 4, 4]}, "x0,y0,x1,y1"),
        ({"prompt": "a", "image": "/etc/passwd"}, "handle_file"),
    ],
)
def test_bad_requests_get_one_line(client: Client, arguments: dict[str, Any], words: str) -> None:
    assert words in refused(client, **arguments, api_name="/attribute")


def test_files_of_the_server_cannot_be_read(site: Site) -> None:
    """A forged upload that names a file of the server."""
    forged = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    body = {"data": ["a", 0, forged, None, ["abu"], 3]}
    call = httpx.post(f"{site.url}gradio_api/call/attribute", json=body).json()
    answer = httpx.get(f"{site.url}gradio_api/call/attribute/{call['event_id']}").text
    assert "event: error" in answer and "root:" not in answer
    assert httpx.get(f"{site.url}gradio_api/file=/etc/passwd").status_code in (403, 404)


def test_where_the_server_keeps_things_is_told_to_nobody(client: Client, site: Site) -> None:
    """Of the command that mends an index only its folder's name; the command line shows it all."""
    folder = str(site.engine.index.path)
    whole = {m["name"]: m["why"] for m in site.engine.methods()}["trak"]
    assert f"--out {folder}" in whole
    (why,) = (m["why"] for m in client.predict(api_name="/methods") if m["name"] == "trak")
    query = {"prompt": "a", "seed": 1, "methods": ["trak"], "api_name": "/attribute"}
    for told in (why, refused(client, **query)):
        assert "precompute trak --out index" in told and folder not in told
    assert folder not in httpx.get(f"{site.url}picture", params={"id": "none"}).text
    page = httpx.get(f"{site.url}config").text
    assert "--out index" in page and folder not in page


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "run `python -m x --out /srv/a-b/openclipart --k 1`",
            "run `python -m x --out openclipart --k 1`",
        ),
        ("no file /srv/a b", "no file a b"),
        ("cannot read /srv/idx/manifest.json: no", "cannot read manifest.json: no"),
        ("see https://a.org/b/c, 1/2/3 and ./a/b", "see https://a.org/b/c, 1/2/3 and ./a/b"),
        ("relative assets/openclipart/x stays", "relative assets/openclipart/x stays"),
    ],
)
def test_of_a_path_the_last_name_is_public(line: str, told: str) -> None:
    assert public(line) == told


def test_detect_returns_boxes_in_pixels_best_first(client: Client, picture: Path) -> None:
    call = {"image": handle_file(picture), "text": "a dog. a house.", "threshold": 0.1}
    found = client.predict(**call, detector="grounding-dino", api_name="/detect")
    assert found and found == client.predict(**call, api_name="/detect")
    for one in found:
        x0, y0, x1, y1 = one["box"]
        assert 0 <= x0 < x1 <= RESOLUTION and 0 <= y0 < y1 <= RESOLUTION
        assert set(one) == {"box", "score", "label"} and one["label"] in ("a dog", "a house")
    scores = [one["score"] for one in found]
    assert scores == sorted(scores, reverse=True) and min(scores) > 0.1
    looked = client.predict(**call, detector="attention", api_name="/detect")
    assert {one["label"] for one in looked} <= {"a dog", "a house"}


def test_detect_refuses_in_words(client: Client, picture: Path, tmp_path: Path) -> None:
    call = {"image": handle_file(picture), "threshold": 0.3, "detector": "grounding-dino"}
    other = {**call, "detector": "yolo"}
    assert "nknown detector" in refused(client, **other, text="a dog.", api_name="/detect")
    other["detector"] = "groundingdino-py"
    assert "not installed" in refused(client, **other, text="a dog.", api_name="/detect")
    assert "empty" in refused(client, **call, text=" ", api_name="/detect")
    call["threshold"] = 2.0
    assert "threshold" in refused(client, **call, text="a dog.", api_name="/detect")
    noise = tmp_path / "noise.png"
    noise.write_bytes(b"no image at all")
    call |= {"image": handle_file(noise), "threshold": 0.3}
    assert "ot an image" in refused(client, **call, text="a dog.", api_name="/detect")


def test_only_the_contract_s_endpoints_are_public(client: Client) -> None:
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/methods", "/generate", "/detect", "/attribute"}


def test_pictures_are_served_by_id_and_nothing_else(site: Site) -> None:
    record = site.engine.random_records(1, seed=0)[0]
    good = httpx.get(f"{site.url}picture", params={"id": record.id})
    assert good.headers["content-type"] == "image/png"
    assert "immutable" in good.headers["cache-control"]
    for wrong in ("", "../../etc/passwd", "no such record"):
        assert httpx.get(f"{site.url}picture", params={"id": wrong}).status_code == 404


def test_every_answer_carries_the_policy(site: Site) -> None:
    policy = httpx.get(site.url).headers["content-security-policy"]
    assert "connect-src 'self'" in policy and "http" not in policy


def test_monitoring_and_history_are_off(site: Site) -> None:
    assert httpx.get(f"{site.url}monitoring").status_code != 200
    config = httpx.get(f"{site.url}config").json()
    assert config["analytics_enabled"] is False
    assert config["run_history"] is False
