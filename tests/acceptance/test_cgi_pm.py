"""Perl programs with CGI.pm: what it does to a header, and what others do with that."""

import hashlib
import os
import socket

import pytest

from tests.acceptance.installation import Installation, upload
from tests.acceptance.servers import HOST, needs
from tests.support import PATIENCE

pytestmark = needs("/usr/share/perl5/CGI.pm")

RECIPE = "Perl programs with CGI.pm"
APACHE = "ScriptAlias /cgi-bin /srv/cgi-bin"

_USE = "#!/usr/bin/perl -wT\nuse strict;\nuse CGI;\nmy $q = CGI->new;\n"
SCRIPTS = {
    "form.cgi": """
        print $q->header(-charset => 'utf-8', -expires => 'Thu, 01 Jan 2004 00:00:00 GMT', -X_Note => 'a b');
        my %fields = map { $_ => join(',', $q->multi_param($_)) } $q->param;
        print $q->start_html('Form'), $q->h1($q->escapeHTML(join '|', map { "$_=$fields{$_}" } sort keys %fields)),
            $q->p(join '|', map { "$_=" . $q->cookie($_) } sort $q->cookie), $q->p($q->self_url),
            $q->p(join '|', map { defined($_) ? $_ : '-' } $q->url, $q->path_info, $q->request_method,
                $q->script_name, $q->remote_user, $q->server_name, $q->user_agent('x')), $q->end_html;
        """,
    "upload.cgi": """
        use Digest::SHA;
        my $file = $q->upload('file');
        my $sum = Digest::SHA->new(256); binmode $file; $sum->addfile($file);
        print $q->header('text/plain'), join ' ', $sum->hexdigest, $q->param('title'),
            $q->uploadInfo($q->param('file'))->{'Content-Type'}, scalar $q->param('file');
        """,
    "cookie.cgi": """
        my @cookies = map { $q->cookie(-name => $_, -value => ['1', 'a b&c'], -path => '/cgi-bin',
            -httponly => 1, -samesite => 'Lax') } 'one', 'two';
        print $q->header(-type => 'text/plain', -cookie => \\@cookies, -status => '203 Fine'), 'set';
        """,
    "redirect.cgi": """
        my $status = $q->param('status');
        print $q->redirect(-uri => $q->param('to'), $status ? (-status => "$status Elsewhere") : (),
            -cookie => $q->cookie(a => 1));
        """,
    "nph-own.cgi": """
        print $q->header(-nph => 1, -type => 'text/plain', -status => '202 Taken', -cookie => $q->cookie(a => 1)),
            'all by itself';
        """,
    "nph.cgi": """
        use CGI qw(-nph);
        print $q->header(-type => 'text/plain', -status => '418 Teapot'), 'by its content';
        """,
    "push.cgi": """
        $| = 1;
        print $q->multipart_init(-boundary => 'EDGE');
        for my $n (1 .. 3) {
            print $q->multipart_start(-type => 'text/plain'), "part $n\\n",
                $n < 3 ? $q->multipart_end : $q->multipart_final;
            open my $go, '<', "go$n" or die; <$go>;
        }
        """,
    "warn.cgi": """
        warn "something is odd\\n"; print $q->header(-status => 404), 'not here';
        """,
    "die.cgi": "die 'it broke';",
}


def prepare(site: Installation) -> None:
    folder = site.srv / "cgi-bin"
    folder.mkdir()
    for name, text in SCRIPTS.items():
        (folder / name).write_text(_USE + text)
        (folder / name).chmod(0o755)
    for number in (1, 2, 3):
        os.mkfifo(folder / f"go{number}")
    site.own(site.srv / "cgi-bin")


def test_a_form(site: Installation) -> None:
    """Fields, also repeated ones and those of the query, cookies, and what CGI.pm believes to be its URL."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "a=1; b=x%20y", "User-Agent": "x"}
    body = b"name=J%C3%BCrgen&many=1&many=2"
    found = site.same("/cgi-bin/form.cgi/more/path?q=1;r=%3Cb%3E", body, headers)
    assert "many=1,2|name=J\u00fcrgen" in found.text
    assert "a=1|b=x y" in found.text
    assert f"http://{HOST}/cgi-bin/form.cgi|/more/path|POST|/cgi-bin/form.cgi|-|{HOST}" in found.text


def test_an_upload(site: Installation) -> None:
    """A multipart upload of 5 MB arrives byte by byte, with its name and type."""
    content = os.urandom(5 << 20)
    found = site.same("/cgi-bin/upload.cgi", *upload("a.png", content))
    assert found.text == f"{hashlib.sha256(content).hexdigest()} x image/x a.png"


def test_cookies(site: Installation) -> None:
    """Two cookies are two header fields, and a status between them is the answer's."""
    found = site.same("/cgi-bin/cookie.cgi")
    assert found.status == 203
    assert [value.partition("=")[0] for value in found.all("set-cookie")] == ["one", "two"]


@pytest.mark.parametrize("status", ["", "301", "303", "307"])
@pytest.mark.parametrize("to", ["http://www.example.com/x?a=b", "/cgi-bin/cookie.cgi"], ids=["away", "here"])
def test_a_redirect(site: Installation, status: str, to: str) -> None:
    """`redirect` sends `Status` and `Location` in its own order, with a cookie; it goes to the client as it is."""
    found = site.same(f"/cgi-bin/redirect.cgi?status={status}&to={to.replace('?', '%3F').replace('&', '%26')}")
    assert (found.status, found.one("location")) == (int(status or 302), to)
    assert found.one("set-cookie").startswith("a=1")


def test_a_script_that_makes_its_whole_answer(site: Installation) -> None:
    """NPH by name: the status line is the script's, here and in Apache."""
    ours, theirs = site.both("/cgi-bin/nph-own.cgi")
    assert (ours.status, ours.text) == (theirs.status, theirs.text) == (202, "all by itself")
    for name in ("content-type", "set-cookie"):
        assert ours.all(name) == theirs.all(name)


def test_a_script_that_makes_its_whole_answer_under_another_name(site: Installation) -> None:
    """NPH by content, which Apache refuses: the status line counts whatever the script is called."""
    ours, theirs = site.both("/cgi-bin/nph.cgi")
    assert (ours.status, ours.text) == (418, "by its content")
    assert theirs.status == 500


def test_parts_arrive_while_the_script_runs(site: Installation) -> None:
    """A multipart push: each part reaches the client before the script goes on to the next."""
    folder = site.srv / "cgi-bin"
    request = f"GET /cgi-bin/push.cgi HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", site.nginx_port), PATIENCE) as sock, sock.makefile("rb") as lines:
        sock.sendall(request)
        got: list[bytes] = []
        for number in (1, 2, 3):
            # The script waits for a word in its pipe; the part is here before that.
            while not got or got[-1] != b"part %d\n" % number:
                line = lines.readline()
                assert line, got
                got.append(line)
            (folder / f"go{number}").write_text("go on\n")
        rest = lines.read()
    assert any(line.startswith(b'Content-Type: multipart/x-mixed-replace;boundary="EDGE"') for line in got)
    assert rest.lstrip().startswith(b"--EDGE--\r\n")


def test_what_a_script_says_on_stderr_is_in_the_log(site: Installation) -> None:
    """A warning goes to the log and not to the page; the page is the same as Apache's."""
    assert site.same("/cgi-bin/warn.cgi").status == 404
    site.server.wait_for(event="stderr", message=lambda text: "something is odd" in text)


def test_a_script_that_dies(site: Installation) -> None:
    """It gave no header: an error here and in Apache, with the reason in the log alone."""
    ours, theirs = site.both("/cgi-bin/die.cgi")
    assert (ours.status, theirs.status) == (502, 500)
    assert b"it broke" not in ours.body
    site.server.wait_for(event="stderr", message=lambda text: "it broke" in text)
