"""Tables that published benchmarks exchange, read and scored as they are."""
