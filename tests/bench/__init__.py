"""The benchmarks: `make bench`, `make bench-directory`, `make bench-instructions`.

`kit` is what they are made from, `load` drives it, `services` is what is measured; `speed`, `memory`,
`postfwd` and `smtp` make rows of one `table`. `directory` and `company` measure what directories are asked,
`instructions` and `counting` how many bytecodes a request takes. The tests run them in a tiny size.
"""
