"""Published sets as their owners lay them out: readers, and writers of small synthetic copies."""
