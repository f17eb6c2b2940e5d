"""``report.html``: one page that tells what a run showed, without anything from outside the folder of results."""
