"""The state of a training on disk, sharded and sealed, and the averages it hands on."""
