"""`python -m tests.bench`: the table of README; or one of the other benchmarks, by name.

python -m tests.bench [--quick] [--only ROWS]... [--pin]
python -m tests.bench directory ...
python -m tests.bench instructions ...
"""

import sys

from tests.bench import beside, directory, instructions

if __name__ == "__main__":
    named = {"directory": directory.main, "instructions": instructions.main}
    if sys.argv[1:2] and sys.argv[1] in named:
        named[sys.argv[1]](sys.argv[2:])
    else:
        beside.main(sys.argv[1:])
