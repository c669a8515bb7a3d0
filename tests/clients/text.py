"""A text file of keyed lines, the same for the same arguments: python3 text.py LINES > FILE.

Each line is `key TAB number SPACE words`. Keys repeat unevenly, words include several scripts, and lengths run from
a few bytes to several kilobytes, so that codecs, partitioners and batch limits all have something to do. The number
makes each line unique and gives it its place.
"""

import random
import sys

WORDS = (
    "wind trade harbour ledger cargo tide mast anchor compass chart sail rope deck crew port starboard "
    "Segelschiff Jörð façade año naïve Ελλάδα корабль ветер 貿易風 港 船 무역풍 तूफ़ान سفينة ⛵ 🌊 null \\N {} [] \"'` a=b;c,d"
).split(" ")


def lines(count, seed=7):
    rng = random.Random(seed)
    for number in range(count):
        # One line in 200 is long enough to fill a page; most are short.
        words = rng.randint(300, 900) if rng.random() < 0.005 else rng.randint(1, 14)
        key = f"k{int(rng.paretovariate(0.7)) % 997}"
        yield f"{key}\t{number} {' '.join(rng.choices(WORDS, k=words))}"


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    for line in lines(int(sys.argv[1])):
        print(line)
