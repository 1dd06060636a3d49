"""What Prometheus reads: counters that cost next to nothing to add to, and the text that is made of them only
when it is asked for.

histogram.py     durations by how long they were
traffic.py       requests by route and status, event streams that are open
stored.py        what the database says, asked for at most every few seconds
families.py      every series by its name, from all of these
process.py       what this process takes of the machine
text.py          the format
page.py          all of it as one page, for a key's owner or for the machine's
port.py          the page on a loopback port of its own, without a key
"""
