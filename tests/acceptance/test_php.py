"""PHP by `cgi-helper`: one php-cgi for each request."""

import hashlib
import os
import shutil

import pytest

from tests.acceptance.installation import Installation, upload
from tests.acceptance.servers import needs

PHP = shutil.which("php-cgi") or "/usr/bin/php-cgi"
pytestmark = needs(PHP)

RECIPE = "PHP"
FILES = {"app/.user.ini": "ini"}
#: The usual way to have php-cgi in Apache: an action, which Apache redirects to internally.
APACHE = f"""
Alias /app /srv/app
DirectoryIndex index.php
AddType application/x-php .php
Action application/x-php /php-bin
ScriptAlias /php-bin {PHP}
"""
SCRIPTS = {
    "index.php": "<?php echo 'index of ', $_SERVER['SCRIPT_NAME'], ' ', __FILE__;",
    "form.php": """<?php
        setcookie('seen', $_POST['name'] ?? 'nobody', 0, '/app/');
        setcookie('second', 'b');
        header('Content-Type: text/plain; charset=utf-8');
        header('X-Powered-By: the form');
        ksort($_POST); ksort($_GET); ksort($_COOKIE);
        echo json_encode([$_POST, $_GET, $_COOKIE, $_SERVER['REQUEST_METHOD'], $argc ?? 0]);
        """,
    "upload.php": """<?php
        header('Content-Type: application/json');
        $file = $_FILES['file'];
        echo json_encode([$file['name'], $file['type'], $file['size'], $file['error'],
            is_uploaded_file($file['tmp_name']) ? hash_file('sha256', $file['tmp_name']) : '', $_POST]);
        """,
    "input.php": "<?php echo hash('sha256', file_get_contents('php://input')), ' ', $_SERVER['CONTENT_LENGTH'];",
    "go.php": "<?php header('Location: /app/form.php?from=go', true, (int) $_GET['status']); echo 'moved';",
    "none.php": "<?php http_response_code(404); echo 'the application has no such page';",
    "fresh.php": """<?php
        header('ETag: "one"');
        if (($_SERVER['HTTP_IF_NONE_MATCH'] ?? '') === '"one"') { http_response_code(304); exit; }
        echo 'the page';
        """,
    "where.php": """<?php
        foreach (['SCRIPT_NAME', 'SCRIPT_FILENAME', 'PATH_INFO', 'REQUEST_URI', 'PHP_SELF', 'QUERY_STRING',
                  'GATEWAY_INTERFACE', 'SERVER_NAME'] as $name) { echo $name, '=', $_SERVER[$name] ?? '-', "\\n"; }
        echo getcwd(), "\\n";
        """,
    "fatal.php": "<?php ini_set('display_errors', '0'); nobody_knows_this();",
    "secret.txt": "not for everybody",
}


def prepare(site: Installation) -> None:
    folder = site.srv / "app"
    for name, text in SCRIPTS.items():
        (folder / name).write_text(text)  # PHP's scripts need not be executable: the helper reads them
    (folder / "secret.txt").chmod(0o755)
    (folder / ".user.ini").chmod(0o755)
    (folder / "inner").mkdir()
    (folder / "inner" / "index.php").write_text(SCRIPTS["index.php"])
    site.own(site.srv / "app")


def test_a_form(site: Installation) -> None:
    """Fields of a form, a query and cookies arrive; two cookies and PHP's own header fields leave."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "x=1; y=2"}
    found = site.same("/app/form.php?q=a%26b", b"name=J%C3%BCrgen+B&list[]=1&list[]=2", headers)
    assert found.text == (
        '[{"list":["1","2"],"name":"J\\u00fcrgen B"},{"q":"a&b"},{"x":"1","y":"2"},"POST",0]'
    )
    assert found.all("set-cookie") == ["seen=J%C3%BCrgen%20B; path=/app/", "second=b"]


@pytest.mark.parametrize("way", ["length", "chunked"])
def test_an_upload_of_5_megabytes(site: Installation, way: str) -> None:
    """A multipart upload is in PHP's hands byte by byte; sent in chunks, too, which PHP gets from no Apache."""
    content = os.urandom(5 << 20)
    body, headers = upload("a b.png", content)
    if way == "length":
        found = site.same("/app/upload.php", body, headers)
    else:
        found = site.fetch("/app/upload.php", (body[:70_000], body[70_000:]), headers)
    digest = hashlib.sha256(content).hexdigest()
    assert found.text == f'["a b.png","image\\/x",{len(content)},0,"{digest}",{{"title":"x"}}]'


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_body_that_is_no_form(site: Installation, method: str) -> None:
    """`php://input` has the bytes of the body, of any type and method."""
    content = os.urandom(100_000)
    found = site.same("/app/input.php", content, {"Content-Type": "application/json"}, method=method)
    assert found.text == f"{hashlib.sha256(content).hexdigest()} 100000"


@pytest.mark.parametrize("query", ["-s", "-s+", "-%73", "-dallow_url_include%3don+-dauto_prepend_file%3dphp://input"])
def test_a_query_is_no_command_line(site: Installation, query: str) -> None:
    """`?-s` runs the script and does not show its source (CVE-2012-1823)."""
    found = site.same(f"/app/index.php?{query}", b"<?php echo 'injected';", {"Content-Type": "text/plain"})
    assert found.text.startswith("index of /app/index.php /")
    assert "<?php" not in found.text


@pytest.mark.parametrize("status", [301, 302, 303, 307])
def test_a_redirect(site: Installation, status: int) -> None:
    """`header("Location: ...")` with the status that the script gives, and its body."""
    found = site.same(f"/app/go.php?status={status}")
    assert (found.status, found.one("location"), found.text) == (status, "/app/form.php?from=go", "moved")


@pytest.mark.parametrize(
    "path", ["/app/where.php", "/app/where.php/more/of%20it?a=b", "/app/none.php", "/app/index.php", "/app/inner/"]
)
def test_an_answer_is_the_same_as_apaches(site: Installation, path: str) -> None:
    """Where a script finds itself, its own 404, and the index of a folder: as in Apache."""
    site.same(path)


def test_the_url_of_a_folder_gets_its_slash(site: Installation) -> None:
    """Without it the relative links of the index would lead elsewhere."""
    ours, theirs = site.both("/app/inner?a=b")
    assert (ours.status, theirs.status) == (301, 301)
    assert ours.one("location").endswith("/app/inner/?a=b")
    assert theirs.one("location").endswith("/app/inner/?a=b")


def test_what_did_not_change_is_not_sent_again(site: Installation) -> None:
    """The script's own 304 has no body and keeps its `ETag`."""
    assert site.same("/app/fresh.php").text == "the page"
    again = site.same("/app/fresh.php", headers={"If-None-Match": '"one"'})
    assert (again.status, again.body, again.one("etag")) == (304, b"", '"one"')


def test_what_is_no_php_is_not_run_and_not_shown(site: Installation) -> None:
    """Other files beside the scripts, the settings among them, are 403 and stay where they are."""
    for name in ("secret.txt", ".user.ini"):
        found = site.fetch(f"/app/{name}")
        assert found.status == 403
        assert SCRIPTS["secret.txt"].encode() not in found.body
        assert b"upload_max_filesize" not in found.body


def test_a_fatal_error_is_an_error(site: Installation) -> None:
    """A script that breaks is 500 for its client, and its message is in the log, not on the page."""
    ours, theirs = site.both("/app/fatal.php")
    assert (ours.status, theirs.status) == (500, 500)
    assert b"nobody_knows_this" not in ours.body
    site.server.wait_for(event="stderr", message=lambda text: "undefined function nobody_knows_this" in text)
