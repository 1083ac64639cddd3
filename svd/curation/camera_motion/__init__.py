"""What the camera does in a clip, as one of a few classes."""
