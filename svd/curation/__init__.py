"""From raw videos to judged, annotated clips."""
