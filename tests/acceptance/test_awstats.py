"""AWStats: 20 000 lines of Perl from the time when everything was CGI."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.installation import Installation
from tests.acceptance.servers import needs

PROGRAM = "/usr/lib/cgi-bin/awstats.pl"
pytestmark = needs(PROGRAM)

RECIPE = "AWStats"
APACHE = f"""
ScriptAlias /cgi-bin/awstats.pl {PROGRAM}
SetEnv AWSTATS_ENABLE_CONFIG_DIR /srv/awstats
"""
_CONFIGURATION = """
LogFile="{folder}/access.log"
LogType=W
LogFormat=1
SiteDomain="www.example.org"
HostAliases="localhost"
DNSLookup=0
DirData="{folder}/data"
DirCgi="/cgi-bin"
DirIcons="/awstats-icon"
AllowToUpdateStatsFromBrowser=0
UseFramesWhenCGI=0
"""


def prepare(site: Installation) -> None:
    folder = site.srv / "awstats"
    (folder / "data").mkdir(parents=True)
    (folder / "awstats.town.conf").write_text(_CONFIGURATION.format(folder=folder))
    # The n-th host asks n times for the n-th page: AWStats lists what is equal in no particular order.
    requests = [n for n in range(1, 31) for _ in range(n)]
    (folder / "access.log").write_text(
        "".join(
            f"192.0.2.{n} - - [03/Feb/2001:04:{i // 60:02}:{i % 60:02} +0000] "
            f'"GET /page{n}.html HTTP/1.1" 200 {n} "http://www.example.com/<b>" '
            '"Mozilla/5.0 (X11; Linux x86_64; rv:102.0) Gecko/20100101 Firefox/102.0"\n'
            for i, n in enumerate(requests)
        )
    )
    update = [PROGRAM, "-config=town", f"-configdir={folder}", "-update"]
    subprocess.run(update, check=True, capture_output=True, timeout=50)
    site.own(site.srv / "awstats")


def page(site: Installation, query: str) -> str:
    return f"/cgi-bin/awstats.pl?config=town&configdir={site.srv}/awstats&year=2001&month=02{query}"


@pytest.mark.parametrize(
    "query", ["", "&output=urldetail", "&output=allhosts&lang=de", "&framename=mainleft", "&output=browserdetail"]
)
def test_a_report_is_the_same_as_apaches(site: Installation, query: str) -> None:
    """The pages that people look at, frames and languages included."""
    ours, theirs = site.both(page(site, query))
    assert (ours.status, ours.timeless) == (200, theirs.timeless)
    assert ours.body == theirs.body
    assert ours.body.rstrip().endswith(b"</html>")


def test_the_report_counts_what_the_log_says(site: Installation) -> None:
    """465 requests for 30 pages are in it."""
    found = re.sub("<[^>]+>", " ", site.fetch(page(site, "&output=urldetail")).text)
    assert "Total: 30 different pages-url" in found
    assert re.search(r"/page30.html\s+30\s+30 Bytes", found)
    assert " 465 " in re.sub("<[^>]+>", " ", site.fetch(page(site, "")).text)


@pytest.mark.parametrize("query", ["?config=none", "", "?config=town&configdir=/etc", "?config=town&update=1"])
def test_what_it_refuses_it_refuses_in_its_own_words(site: Installation, query: str) -> None:
    """A site that it does not know, no site at all, a folder that is not allowed: its own page, as in Apache."""
    ours, theirs = site.both(f"/cgi-bin/awstats.pl{query}")
    assert ours.timeless == theirs.timeless
    assert ours.body == theirs.body
    assert "AWStats" in ours.text


def test_icons_come_from_nginx(site: Installation) -> None:
    """A page names images that are there."""
    (icon, *_) = re.findall(r'src="(/awstats-icon/[^"]+\.png)"', site.fetch(page(site, "")).text)
    file = Path("/usr/share/awstats/icon", icon.removeprefix("/awstats-icon/"))
    assert site.fetch(icon).body == file.read_bytes()
